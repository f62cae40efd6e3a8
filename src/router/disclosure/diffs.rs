//! Which files a diff holds text of. Diffs are piped into questions, summarized and made into commit
//! messages, and what is said against a file holds for its diff.

/// The names of the files whose text is in the diffs within `text`, as they are written there. A
/// removed line may look like the name of a file; one name too many does no harm.
pub(super) fn files(text: &str) -> Vec<String> {
    // Text without a hunk is no diff, and its rulers and lists name no files.
    if !text.lines().any(|line| line.starts_with("@@ -")) && !text.contains("\n@@@ -") {
        return Vec::new();
    }
    text.lines()
        .filter_map(|line| {
            let path = line
                .strip_prefix("+++ ")
                .or_else(|| line.strip_prefix("--- "))?;
            let path = match path.trim_start().strip_prefix('"') {
                Some(quoted) => unquoted(quoted),
                // Plain `diff -u` puts a time after a tab.
                None => path.split('\t').next().unwrap_or(path).trim().to_owned(),
            };
            // Git sets `a/`, or another letter, before each.
            let path = match path.split_once('/') {
                Some((side, path)) if side.len() == 1 => path,
                _ => &path,
            };
            (!path.is_empty() && path != "/dev/null").then(|| path.to_owned())
        })
        .collect()
}

/// A name as git quotes it where it holds other characters than ASCII: with the escapes of C, to
/// the closing quote.
fn unquoted(quoted: &str) -> String {
    let mut name = Vec::new();
    let mut bytes = quoted.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            b'\\' => name.push(match bytes.next() {
                Some(digit @ b'0'..=b'7') => {
                    let mut value = u32::from(digit - b'0');
                    for _ in 0..2 {
                        if let Some(digit) = bytes.next_if(|byte| (b'0'..=b'7').contains(byte)) {
                            value = value * 8 + u32::from(digit - b'0');
                        }
                    }
                    // Three digits may say more than a byte holds; git writes no such thing.
                    u8::try_from(value).unwrap_or(b'?')
                }
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(other) => other,
                None => break,
            }),
            byte => name.push(byte),
        }
    }
    String::from_utf8_lossy(&name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &str, expected: &[&str]) {
        let diff = format!("What is this?\n{names}\n@@ -1 +1 @@\n-x\n+y\n");
        assert_eq!(files(&diff), expected, "{diff}");
    }

    #[test]
    fn the_files_of_a_diff_are_found() {
        check("--- a/src/a.rs\n+++ b/src/a.rs", &["src/a.rs", "src/a.rs"]);
        check("--- /dev/null\n+++ b/.env", &[".env"]);
        check(
            "--- old.txt\t2026-01-01\n+++ new.txt\t2026-01-02",
            &["old.txt", "new.txt"],
        );
        check("+++ \"b/odd name\"", &["odd name"]);
        check(
            "+++ \"b/s\\303\\244\\tt\\\\\\\"/.env\"\t",
            &["s\u{e4}\tt\\\"/.env"],
        );
        check("+++ \"b/.env\\", &[".env"]);
        check("+ +++ b/.env", &[]);
    }

    #[test]
    fn text_that_is_no_diff_names_no_files() {
        assert!(files("--- .env\n+++ .env\n").is_empty());
        let merged = "--- a/.env\n+++ b/.env\n@@@ -1,1 -1,1 +1,1 @@@\n";
        assert_eq!(files(merged), [".env", ".env"]);
    }
}
