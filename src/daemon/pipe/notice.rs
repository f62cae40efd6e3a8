//! The notice that a daemon leaves for its sessions: the pipe it listens at, and which process it is.

/// What every pipe's name begins with.
const PREFIX: &str = "tandem-";

/// Digits of the random number behind it.
const DIGITS: usize = 32;

/// Bytes that a notice may have. It has about eighty.
#[cfg(windows)]
pub const LONGEST: u64 = 256;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    name: String,
    /// The daemon's process.
    pub pid: u32,
    /// When that was made, by Windows's count: tells it from a later one with the same number.
    pub created: u64,
}

impl Notice {
    /// A notice of a pipe that nobody knows of yet.
    #[must_use]
    pub fn new(pid: u32, created: u64) -> Self {
        Self {
            name: format!("{PREFIX}{:0DIGITS$x}", rand::random::<u128>()),
            pid,
            created,
        }
    }

    /// The pipe, on this machine.
    #[must_use]
    pub fn pipe(&self) -> String {
        format!(r"\\.\pipe\{}", self.name)
    }

    /// As it stands in the file.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.name, self.pid, self.created)
    }

    /// Reads [`Self::text`]; `None` where it is anything else, a part of it included.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let notice = Self {
            name: lines.next()?.to_owned(),
            pid: lines.next()?.parse().ok()?,
            created: lines.next()?.parse().ok()?,
        };
        let number = notice.name.strip_prefix(PREFIX)?;
        let is_ours = number.len() == DIGITS && number.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_ours && lines.next().is_none()).then_some(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_comes_back_and_names_a_pipe_of_this_machine() {
        let notice = Notice::new(7, 133_000_000_000_000_000);
        assert_eq!(Notice::read(&notice.text()), Some(notice.clone()));
        assert!(notice.pipe().starts_with(r"\\.\pipe\tandem-"), "{notice:?}");
        assert!(notice.text().len() < 128, "{notice:?}");
        assert_ne!(Notice::new(7, 0).pipe(), Notice::new(7, 0).pipe());
    }

    #[test]
    fn a_part_of_a_notice_and_anything_else_is_none() {
        let text = Notice::new(7, 9).text();
        for end in 0..text.len() {
            assert_eq!(Notice::read(&text[..end]), None, "{end}");
        }
        let name = text.lines().next().unwrap();
        for other in [
            format!("{name}\n7\n9\n1\n"),
            format!("{name}\n-7\n9\n"),
            format!("{name}\n7\n\n"),
            format!(r"..\{name}{}7{}9{}", '\n', '\n', '\n'),
            "tandem-\n7\n9\n".to_owned(),
            text.replace("tandem-", r"\\host\pipe\tandem-"),
        ] {
            assert_eq!(Notice::read(&other), None, "{other:?}");
        }
    }
}
