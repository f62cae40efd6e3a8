//! What the daemon asks of Windows by its C interface: whose a process is, pipes for one user, and the
//! standard handles. All unsafe code of the daemon is here.

use std::io;
use std::mem::size_of;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr;

use tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer, ServerOptions};
use windows_sys::Win32::Foundation::{
    CloseHandle, ERROR_PIPE_BUSY, FILETIME, HANDLE, HANDLE_FLAG_INHERIT, INVALID_HANDLE_VALUE,
    LocalFree, SetHandleInformation,
};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::{
    EqualSid, GetTokenInformation, PSECURITY_DESCRIPTOR, PSID, SECURITY_ATTRIBUTES,
    TOKEN_ELEVATION, TOKEN_INFORMATION_CLASS, TOKEN_QUERY, TOKEN_USER, TokenElevation, TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::{FILE_SHARE_READ, FILE_SHARE_WRITE};
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, SetStdHandle,
};
use windows_sys::Win32::System::Pipes::{GetNamedPipeClientProcessId, GetNamedPipeServerProcessId};
use windows_sys::Win32::System::Threading::{
    CREATE_BREAKAWAY_FROM_JOB, CREATE_NEW_PROCESS_GROUP, DETACHED_PROCESS, GetProcessTimes,
    OpenProcess, OpenProcessToken, PROCESS_ACCESS_RIGHTS, PROCESS_QUERY_LIMITED_INFORMATION,
    PROCESS_TERMINATE, TerminateProcess,
};

/// The error of a pipe that nobody waits at right now.
pub const PIPE_BUSY: i32 = ERROR_PIPE_BUSY as i32;

/// How a file is shared that keeps its name for as long as it is open.
pub const KEPT_BY_NAME: u32 = FILE_SHARE_READ | FILE_SHARE_WRITE;

/// How a process is made that has no console and hears no Ctrl-C of ours. (CREATE_NO_WINDOW would be
/// ignored beside it.)
pub const DETACHED: u32 = DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP;

/// How a process is made that does not belong to the job of this one.
pub const APART: u32 = CREATE_BREAKAWAY_FROM_JOB;

/// Buffers of a pipe, in bytes each way.
const BUFFER: u32 = 64 << 10;

/// A process that does not come to its end by itself ends with this code.
const ENDED_BY_US: u32 = 1;

/// A process, by more than its number, which another one has after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was made, in 100 ns since 1601.
    pub created: u64,
}

/// Whose a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Examined {
    /// This user's.
    Ours(Process),
    /// Another user's, or one that this user may not ask.
    Foreign,
}

impl Process {
    /// This process.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ours() -> io::Result<Self> {
        let pid = std::process::id();
        let created = created(&open(pid, PROCESS_QUERY_LIMITED_INFORMATION)?)?;
        Ok(Self { pid, created })
    }

    /// Ends it, if it is this user's and still the same. Says whether it was.
    ///
    /// # Errors
    /// When it is not there any more, or the system refuses.
    pub fn end(self) -> io::Result<bool> {
        let process = open(
            self.pid,
            PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_TERMINATE,
        )?;
        if created(&process)? != self.created || !is_ours(&process)? {
            return Ok(false);
        }
        // SAFETY: the handle is open, with the right to end the process.
        done(unsafe { TerminateProcess(handle(&process), ENDED_BY_US) })?;
        Ok(true)
    }
}

/// The process that opened `pipe`.
///
/// # Errors
/// When it is gone, or the system does not say.
pub fn process_of_client(pipe: &NamedPipeServer) -> io::Result<Examined> {
    let mut pid = 0;
    // SAFETY: the handle is open while `pipe` is borrowed, and the number is written to our variable.
    done(unsafe { GetNamedPipeClientProcessId(handle(pipe), &raw mut pid) })?;
    examine(pid)
}

/// The process that made `pipe`.
///
/// # Errors
/// As [`process_of_client`].
pub fn process_of_server(pipe: &NamedPipeClient) -> io::Result<Examined> {
    let mut pid = 0;
    // SAFETY: as in `process_of_client`.
    done(unsafe { GetNamedPipeServerProcessId(handle(pipe), &raw mut pid) })?;
    examine(pid)
}

fn examine(pid: u32) -> io::Result<Examined> {
    let examined = || {
        let process = open(pid, PROCESS_QUERY_LIMITED_INFORMATION)?;
        Ok(if is_ours(&process)? {
            let created = created(&process)?;
            Examined::Ours(Process { pid, created })
        } else {
            Examined::Foreign
        })
    };
    examined().or_else(|error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => Ok(Examined::Foreign),
        _ => Err(error),
    })
}

/// An instance of the pipe `name` that this user alone may open, on this machine alone; `first` where
/// there must be none of that name. Must be called within a tokio runtime.
///
/// # Errors
/// When the system refuses, or there is one already.
pub fn create(name: &str, first: bool) -> io::Result<NamedPipeServer> {
    let process = open(std::process::id(), PROCESS_QUERY_LIMITED_INFORMATION)?;
    let descriptor = Descriptor::of(&User::of(&process)?)?;
    let mut attributes = SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: descriptor.0,
        bInheritHandle: 0,
    };
    let mut options = ServerOptions::new();
    options
        .first_pipe_instance(first)
        .reject_remote_clients(true)
        .in_buffer_size(BUFFER)
        .out_buffer_size(BUFFER);
    // SAFETY: the attributes are whole, and they and the descriptor in them outlive the call.
    unsafe { options.create_with_security_attributes_raw(name, (&raw mut attributes).cast()) }
}

/// Whether this process runs with an administrator's rights; not, where the system does not say.
#[must_use]
pub fn is_elevated() -> bool {
    let elevation = || {
        let process = open(std::process::id(), PROCESS_QUERY_LIMITED_INFORMATION)?;
        let said = token_information(&process, TokenElevation, size_of::<TOKEN_ELEVATION>())?;
        // SAFETY: the words are as many as the structure needs at least, aligned to more than it asks,
        // and zero where the system wrote nothing; every content is a number.
        let elevation = unsafe { said.as_ptr().cast::<TOKEN_ELEVATION>().read() };
        Ok::<_, io::Error>(elevation.TokenIsElevated != 0)
    };
    elevation().unwrap_or(false)
}

/// Keeps the standard handles of this process from those that it starts: without it a daemon would hold
/// the pipes of the editor that started the session, which waits for their end.
pub fn keep_standard_handles() {
    for which in [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        // SAFETY: takes no memory of ours.
        let standard = unsafe { GetStdHandle(which) };
        if !standard.is_null() && standard != INVALID_HANDLE_VALUE {
            // SAFETY: changes a mark of a handle that nobody closes: it is the process's own.
            let _ = unsafe { SetHandleInformation(standard, HANDLE_FLAG_INHERIT, 0) };
        }
    }
}

/// Closes the standard handles of this process, whose other ends somebody may wait for the end of. What
/// is read from or written to them from then on is nothing.
pub fn leave_standard_handles() {
    for which in [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        // SAFETY: takes no memory of ours.
        let standard = unsafe { GetStdHandle(which) };
        // SAFETY: without a handle the standard library takes a stream for empty.
        let left = unsafe { SetStdHandle(which, ptr::null_mut()) } != 0;
        if left && !standard.is_null() && standard != INVALID_HANDLE_VALUE {
            // SAFETY: the handle was the process's own, and nobody finds it any more. A thread that
            // writes at this moment at worst gets an error.
            let _ = unsafe { CloseHandle(standard) };
        }
    }
}

/// A user's security identifier, with the memory that it lies in.
struct User(Vec<u64>);

impl User {
    fn of(process: &OwnedHandle) -> io::Result<Self> {
        token_information(process, TokenUser, size_of::<TOKEN_USER>()).map(Self)
    }

    fn sid(&self) -> PSID {
        // SAFETY: `of` has the system write a `TOKEN_USER` there, in memory that is aligned for it.
        let user = unsafe { self.0.as_ptr().cast::<TOKEN_USER>().read() };
        // Points behind the structure, into the same memory.
        user.User.Sid
    }

    /// As in `S-1-5-21-…`.
    fn name(&self) -> io::Result<String> {
        let mut text = ptr::null_mut();
        // SAFETY: the identifier is the system's own, and lives as long as `self`.
        done(unsafe { ConvertSidToStringSidW(self.sid(), &raw mut text) })?;
        let mut units = Vec::new();
        // SAFETY: the text ends with a zero, and nothing behind it is read.
        while let Some(unit) = Some(unsafe { text.add(units.len()).read() }).filter(|&u| u != 0) {
            units.push(unit);
        }
        // SAFETY: the system allocated it for us with that allocator, and it is not used any more.
        unsafe { LocalFree(text.cast()) };
        String::from_utf16(&units).map_err(io::Error::other)
    }
}

impl PartialEq for User {
    fn eq(&self, other: &Self) -> bool {
        // SAFETY: both identifiers are the system's own, and live as long as the users.
        unsafe { EqualSid(self.sid(), other.sid()) != 0 }
    }
}

/// Who may open a pipe.
struct Descriptor(PSECURITY_DESCRIPTOR);

impl Descriptor {
    /// `user` may, and nobody else; nothing is inherited.
    fn of(user: &User) -> io::Result<Self> {
        let text = format!("D:P(A;;GA;;;{})", user.name()?);
        let text: Vec<u16> = text.encode_utf16().chain([0]).collect();
        let mut descriptor = ptr::null_mut();
        // SAFETY: the text ends with a zero; the size of what is made is not asked for.
        done(unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                ptr::null_mut(),
            )
        })?;
        Ok(Self(descriptor))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the system allocated it for us with that allocator, and it is not used any more.
        unsafe { LocalFree(self.0) };
    }
}

fn open(pid: u32, rights: PROCESS_ACCESS_RIGHTS) -> io::Result<OwnedHandle> {
    // SAFETY: takes no memory of ours.
    let process = unsafe { OpenProcess(rights, 0, pid) };
    if process.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was opened just now, and nobody else has it.
    Ok(unsafe { OwnedHandle::from_raw_handle(process) })
}

fn is_ours(process: &OwnedHandle) -> io::Result<bool> {
    let ours = open(std::process::id(), PROCESS_QUERY_LIMITED_INFORMATION)?;
    Ok(User::of(process)? == User::of(&ours)?)
}

fn created(process: &OwnedHandle) -> io::Result<u64> {
    let mut times = [FILETIME::default(); 4];
    let [created, exited, kernel, user] = &mut times;
    // SAFETY: the handle is open, and the four times are written to our variables.
    done(unsafe { GetProcessTimes(handle(process), created, exited, kernel, user) })?;
    Ok(u64::from(created.dwHighDateTime) << 32 | u64::from(created.dwLowDateTime))
}

/// What the token of `process` says about `class`, at least `least` bytes, in memory that is aligned for
/// every such structure.
fn token_information(
    process: &OwnedHandle,
    class: TOKEN_INFORMATION_CLASS,
    least: usize,
) -> io::Result<Vec<u64>> {
    let mut token = ptr::null_mut();
    // SAFETY: the handle is open, and the token's is written to our variable.
    done(unsafe { OpenProcessToken(handle(process), TOKEN_QUERY, &raw mut token) })?;
    // SAFETY: it was opened just now, and nobody else has it.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let mut bytes = 0;
    // Fails, since there is no room, and says how much is needed.
    // SAFETY: with no room, nothing is written but the number.
    unsafe { GetTokenInformation(handle(&token), class, ptr::null_mut(), 0, &raw mut bytes) };
    let words = (bytes as usize).max(least).div_ceil(size_of::<u64>());
    let mut said = vec![0_u64; words];
    let room = (words * size_of::<u64>()) as u32;
    let memory = said.as_mut_ptr().cast();
    // SAFETY: `room` is the size of the memory in bytes.
    done(unsafe { GetTokenInformation(handle(&token), class, memory, room, &raw mut bytes) })?;
    Ok(said)
}

fn handle(of: &impl AsRawHandle) -> HANDLE {
    of.as_raw_handle()
}

/// What a call that returns zero for failure came to.
fn done(result: i32) -> io::Result<()> {
    if result == 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
