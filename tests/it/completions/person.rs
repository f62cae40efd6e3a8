//! The person who types in the bench of completions.

use std::time::Duration;

use super::measure::person::{Ghost, Key, next_key};
use super::measure::random;

fn keys(passage: &str, seed: u64) -> Vec<Key> {
    let mut random = random(seed, "keys");
    let mut keys: Vec<Key> = Vec::new();
    let mut rest = passage;
    while let Some(key) = next_key(rest, keys.last().map(|key| &*key.text), &mut random) {
        rest = &rest[key.text.len()..];
        keys.push(key);
    }
    keys
}

#[test]
fn the_keys_are_the_passage_with_pauses_as_people_make_them() {
    let passage = "let total = items.iter().sum();\n\n    if total > limit {\n        stop();\n";
    let typed = keys(passage, 1);
    let texts: String = typed.iter().map(|key| key.text.as_str()).collect();
    assert_eq!(texts, passage);
    assert!(typed.iter().any(|key| key.text == "\n\n    "));
    assert_eq!(typed, keys(passage, 1));
    let many = keys(&passage.repeat(50), 2);
    let mean = many.iter().map(|key| key.pause).sum::<Duration>() / many.len() as u32;
    assert!((200..280).contains(&mean.as_millis()), "{mean:?}");
}

#[test]
fn a_suggestion_lasts_as_long_as_it_is_right() {
    let ghost = Ghost {
        text: "tal;".to_owned(),
        since: Duration::ZERO,
    };
    let later = ghost.after("t").unwrap();
    assert_eq!(later.text, "al;");
    assert_eq!(later.after("b"), None);
    assert_eq!(ghost.after("tal;"), None);
}

#[test]
fn a_suggestion_is_accepted_that_was_read_and_is_right() {
    let accepted = |text: &str, rest: &str, ms: u64| {
        let ghost = Ghost {
            text: text.to_owned(),
            since: Duration::ZERO,
        };
        ghost.accepted(rest, Duration::from_millis(ms))
    };
    assert_eq!(accepted("a + 1;", "a + 1;\nb", 500), Some(6));
    assert_eq!(accepted("a + 1;", "a + 1;\nb", 100), None);
    assert_eq!(accepted("a + 2;", "a + 1;\nb", 500), None);
    assert_eq!(accepted("a + 1;\nc", "a + 1;\nb", 500), Some(7));
    // Half a word is not right.
    assert_eq!(accepted("tot", "total", 500), None);
}
