//! A server that stands in for the Hugging Face hub: it describes repositories, sends small files
//! itself and points to a content network, on another port, for large ones; as faulty as it is told.

pub mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::wire::{Pause, Request, Response};

/// A repository.
#[derive(Debug, Clone)]
pub struct Repository {
    /// `owner/name`.
    pub name: String,
    /// The commit that `main` is.
    pub commit: String,
    /// Its files.
    pub files: Vec<StoredFile>,
}

/// A file in a repository.
#[derive(Debug, Clone)]
pub struct StoredFile {
    /// Its path.
    pub path: String,
    /// Its content.
    pub content: Vec<u8>,
    /// Whether it is large, and so on the content network.
    pub large: bool,
}

/// What goes wrong with one answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Another status, with the hub's own code for the error.
    Status(u16, &'static str),
    /// Status 429, to be tried again after so many seconds.
    TooMany(u64),
    /// Half of the body, then the connection is closed.
    Cut,
    /// Half of the body, then nothing until the gate opens.
    Gate(Arc<Semaphore>),
    /// The right size, another content.
    WrongContent,
    /// The whole file, whatever part was asked for.
    RangeIgnored,
}

/// What is asked for, as it is told to who decides on faults.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// What for.
    pub what: What,
    /// How often the same was asked for before.
    pub before: usize,
}

/// The kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Which files there are.
    Description,
    /// A file, at the hub.
    File,
    /// A large file's content, at the content network.
    Content,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What for.
    pub what: What,
    /// As it came.
    pub request: Request,
}

type Decide = dyn Fn(&Asked) -> Option<Fault> + Send + Sync;

/// See the module. Stops when dropped.
pub struct HubStandIn {
    hub: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    repositories: Vec<Repository>,
    /// Who does not send it is refused.
    token: Option<String>,
    content: SocketAddr,
    decide: Box<Decide>,
    seen: Mutex<Vec<Seen>>,
}

impl HubStandIn {
    /// Serves the hub at `port` and the content network at another one.
    pub async fn serve(
        port: u16,
        repositories: Vec<Repository>,
        token: Option<&str>,
        decide: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let bind = |port| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let (hub, content) = (bind(port).await?, bind(0).await?);
        let hub_address = hub.local_addr()?;
        let shared = Arc::new(Shared {
            repositories,
            token: token.map(str::to_owned),
            content: content.local_addr()?,
            decide: Box::new(decide),
            seen: Mutex::default(),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(hub, Arc::clone(&shared), Shared::hub));
        serving.spawn(accept(content, Arc::clone(&shared), Shared::content));
        Ok(Self {
            hub: hub_address,
            shared,
            _serving: serving,
        })
    }

    /// For `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen().clone()
    }
}

impl Repository {
    /// A repository with an invented commit.
    pub fn new(name: &str, files: Vec<StoredFile>) -> Self {
        let mut commit = Sha1::new();
        commit.update(name);
        for file in &files {
            commit.update(&file.content);
        }
        Self {
            name: name.to_owned(),
            commit: hex(&commit.finalize()),
            files,
        }
    }

    /// What the hub's `/api/models/…` says.
    fn described(&self) -> Value {
        let siblings: Vec<Value> = self.files.iter().map(StoredFile::described).collect();
        json!({
            "_id": "000000000000000000000000",
            "id": self.name,
            "modelId": self.name,
            "sha": self.commit,
            "private": false,
            "gated": false,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
        })
    }
}

impl StoredFile {
    /// A file that the hub keeps in Git itself.
    pub fn small(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.to_owned(),
            content: content.into(),
            large: false,
        }
    }

    /// A file that the hub keeps in Git LFS.
    pub fn large(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self {
            large: true,
            ..Self::small(path, content)
        }
    }

    /// SHA-256, in hexadecimal.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(&self.content))
    }

    /// What Git LFS leaves in the repository.
    fn pointer(&self) -> String {
        format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
            self.sha256(),
            self.content.len()
        )
    }

    /// Git's id of what is in the repository.
    fn blob_id(&self) -> String {
        let pointer = self.pointer().into_bytes();
        let content = if self.large { &pointer } else { &self.content };
        let mut hash = Sha1::new();
        hash.update(format!("blob {}\0", content.len()));
        hash.update(content);
        hex(&hash.finalize())
    }

    /// As the hub lists a folder.
    fn listed(&self) -> Value {
        let mut listed = json!({
            "type": "file",
            "path": self.path,
            "size": self.content.len(),
            "oid": self.blob_id(),
        });
        if self.large {
            listed["lfs"] = json!({
                "oid": self.sha256(),
                "size": self.content.len(),
                "pointerSize": self.pointer().len(),
            });
        }
        listed
    }

    /// As the hub describes a repository.
    fn described(&self) -> Value {
        let mut described = json!({
            "rfilename": self.path,
            "size": self.content.len(),
            "blobId": self.blob_id(),
        });
        if self.large {
            described["lfs"] = json!({
                "sha256": self.sha256(),
                "size": self.content.len(),
                "pointerSize": self.pointer().len(),
            });
        }
        described
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the request, and asks what is to go wrong with it.
    fn fault(&self, what: What, request: &Request) -> Option<Fault> {
        let mut seen = self.seen();
        let same = |other: &&Seen| {
            other.what == what
                && other.request.target == request.target
                && other.request.method == request.method
        };
        let before = seen.iter().filter(same).count();
        seen.push(Seen {
            what,
            request: request.clone(),
        });
        drop(seen);
        (self.decide)(&Asked { what, before })
    }

    fn hub(&self, request: &Request) -> Response {
        let path = request.target.split('?').next().unwrap_or_default();
        let described = path
            .strip_prefix("/api/models/")
            .and_then(|rest| rest.split_once("/revision/"));
        if let Some((name, revision)) = described {
            let fault = self.fault(What::Description, request);
            return self.answer(request, fault.as_ref(), name, revision, |repository| {
                let body = repository.described().to_string().into_bytes();
                Response::new(200, body).with("content-type", "application/json")
            });
        }
        let listed = path
            .strip_prefix("/api/models/")
            .and_then(|rest| rest.split_once("/tree/"));
        if let Some((name, revision)) = listed {
            let fault = self.fault(What::Description, request);
            return self.answer(request, fault.as_ref(), name, revision, |repository| {
                let files: Vec<Value> = repository.files.iter().map(StoredFile::listed).collect();
                let body = Value::from(files).to_string().into_bytes();
                Response::new(200, body).with("content-type", "application/json")
            });
        }
        let resolved = path.trim_start_matches('/').split_once("/resolve/");
        if let Some((name, rest)) = resolved {
            let (revision, file) = rest.split_once('/').unwrap_or((rest, ""));
            let file = &unescaped(file);
            let fault = self.fault(What::File, request);
            return self.answer(request, fault.as_ref(), name, revision, |repository| {
                self.file(repository, file, request, fault.as_ref())
            });
        }
        refused(404, "RepoNotFound")
    }

    fn answer(
        &self,
        request: &Request,
        fault: Option<&Fault>,
        name: &str,
        revision: &str,
        answer: impl FnOnce(&Repository) -> Response,
    ) -> Response {
        match fault {
            Some(Fault::Status(status, code)) => return refused(*status, code),
            Some(Fault::TooMany(seconds)) => {
                return refused(429, "").with("retry-after", seconds.to_string());
            }
            _ => {}
        }
        let token = request.header("authorization");
        let expected = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if expected.is_some() && token != expected.as_deref() {
            return refused(401, "GatedRepo");
        }
        match self.repositories.iter().find(|known| known.name == name) {
            None => refused(404, "RepoNotFound"),
            Some(known) if revision != "main" && revision != known.commit => {
                refused(404, "RevisionNotFound")
            }
            Some(known) => answer(known).with("x-repo-commit", &known.commit),
        }
    }

    fn file(
        &self,
        repository: &Repository,
        path: &str,
        request: &Request,
        fault: Option<&Fault>,
    ) -> Response {
        let Some(file) = repository.files.iter().find(|file| file.path == path) else {
            return refused(404, "EntryNotFound");
        };
        if !file.large {
            let etag = format!("\"{}\"", file.blob_id());
            return body(&file.content, request, fault).with("etag", etag);
        }
        let etag = format!("\"{}\"", file.sha256());
        let location = format!(
            "http://{}/{}?signature=stand-in",
            self.content,
            file.sha256()
        );
        Response::new(302, Vec::new())
            .with("location", location)
            .with("x-linked-etag", etag)
            .with("x-linked-size", file.content.len().to_string())
            .with("accept-ranges", "bytes")
    }

    fn content(&self, request: &Request) -> Response {
        let hash = request.target.trim_start_matches('/').split('?').next();
        let mut files = self.repositories.iter().flat_map(|known| &known.files);
        let file = files.find(|file| file.large && Some(file.sha256().as_str()) == hash);
        let Some(file) = file else {
            return refused(404, "");
        };
        match self.fault(What::Content, request) {
            Some(Fault::Status(status, code)) => refused(status, code),
            Some(Fault::TooMany(seconds)) => {
                refused(429, "").with("retry-after", seconds.to_string())
            }
            fault => body(&file.content, request, fault.as_ref()),
        }
    }
}

/// The content, or the part of it that is asked for, spoilt by the fault.
fn body(content: &[u8], request: &Request, fault: Option<&Fault>) -> Response {
    let start = request
        .header("range")
        .filter(|_| !matches!(fault, Some(Fault::RangeIgnored)))
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .split('-')
                .next()?
                .parse()
                .ok()
        });
    let mut response = match start {
        Some(start) if start >= content.len() => return refused(416, ""),
        Some(start) => {
            let last = content.len() - 1;
            let range = format!("bytes {start}-{last}/{}", content.len());
            Response::new(206, content[start..].to_vec()).with("content-range", range)
        }
        None => Response::new(200, content.to_vec()),
    }
    .with("accept-ranges", "bytes");
    let half = response.body.len() / 2;
    match fault {
        Some(Fault::Cut) => response.pause = Some((half, Pause::Cut)),
        Some(Fault::Gate(gate)) => {
            response.pause = Some((half, Pause::Gate(Arc::clone(gate))));
        }
        Some(Fault::WrongContent) => response.body.iter_mut().for_each(|byte| *byte = !*byte),
        _ => {}
    }
    response
}

fn refused(status: u16, code: &str) -> Response {
    let body = json!({ "error": format!("the stand-in says {status}") });
    let response = Response::new(status, body.to_string().into_bytes());
    if code.is_empty() {
        response
    } else {
        response.with("x-error-code", code)
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    answer: fn(&Shared, &Request) -> Response,
) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(converse(socket, shared, answer));
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(
    mut socket: TcpStream,
    shared: Arc<Shared>,
    answer: fn(&Shared, &Request) -> Response,
) {
    let mut unread = Vec::new();
    while let Some(request) = Request::read(&mut socket, &mut unread).await {
        let response = answer(&shared, &request);
        let with_body = request.method != "HEAD";
        if response.write(&mut socket, with_body).await.is_err() {
            return;
        }
    }
}

/// Without the escapes of an address.
fn unescaped(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = &after[if escaped.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
