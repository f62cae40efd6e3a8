//! What a model is asked for a commit message with, and what is made of its answer, by either
//! protocol.

/// The longest commit message, in tokens: a subject and a paragraph or two.
pub const MAX_TOKENS: usize = 256;

/// The longest diff, in bytes: more than any model in use takes at once.
pub const LONGEST_DIFF: usize = 1 << 20;

/// What a commit message must be.
pub const RULES: &str = "You write git commit messages. Answer with the message alone: a subject \
                         of at most 72 characters in the imperative mood, and, only where the \
                         reason is not plain from the subject, an empty line and a body that says \
                         why.";

/// The question for a diff.
#[must_use]
pub fn question(diff: &str) -> String {
    format!("<diff>\n{diff}\n</diff>\n\nWrite the commit message for this diff.")
}

/// Takes away a code fence around the whole text, which chat models like to add.
#[must_use]
pub fn unfence(text: &str) -> String {
    let text = text.trim();
    let Some(inner) = text
        .strip_prefix("```")
        .and_then(|rest| rest.strip_suffix("```"))
    else {
        return text.to_owned();
    };
    // The rest of the first line names a language.
    let inner = inner.split_once('\n').map_or(inner, |(_, rest)| rest);
    inner.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_around_a_message_goes() {
        assert_eq!(unfence(" Fix it\n"), "Fix it");
        assert_eq!(unfence("```\nFix it\n```"), "Fix it");
        assert_eq!(unfence("```text\nFix `a`\n\nWhy\n```\n"), "Fix `a`\n\nWhy");
        assert_eq!(unfence("Use ```x```"), "Use ```x```");
    }
}
