//! Secrets in text, recognised by the gitleaks rule set.
//!
//! The rules and the engine that applies them (entropy, allow-lists, placeholders) come from the
//! crate `secrets_scanner`, which carries the gitleaks rules (MIT) and is kept in step with them.
//! Compared in November 2026: `kingfisher-rules` and `keyspoor` need a newer Rust than ours,
//! `ripsecrets` and `secretscan` are command lines that read files and bring their argument
//! parsers along, `nosecrets-rules` has 50 rules and no engine, `keyhog` wants a graphics card.
//!
//! Compiling all its rules takes seconds and hundreds of megabytes, so a rule is compiled when one
//! of its keywords is first seen, and is then applied to the keyword's surroundings only. Left out
//! are the 754 rules it converted from Kingfisher: their keywords are everyday words (`line`,
//! `http`, `box`), so most of them would be compiled for ordinary code.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use aho_corasick::AhoCorasick;
use secrets_scanner::rules::BUNDLED_RULES;
use secrets_scanner::{RulesetConfig, ScanConfig, Scanner};

/// How far before its keyword a rule's match may begin: the rules allow 50 characters and a few.
const BEFORE: usize = 128;

/// How far after its keyword a rule's match may reach: the longest of the usual tokens (signed
/// JSON tokens) are cut by this and recognised all the same, since the end of the text ends them.
const AFTER: usize = 640;

/// The same for armoured keys, which are recognised by their last line: RSA with 16,384 bits.
const AFTER_ARMOUR: usize = 16 * 1024;

/// What begins an armoured key.
const ARMOUR: &str = "-----begin";

/// What separates the rules in the rule set's TOML.
const RULE: &str = "\n[[rules]]\n";

static RULES: LazyLock<Option<Rules>> = LazyLock::new(Rules::read);

struct Rules {
    /// The global allow-list, without the paths of files: text has none.
    head: String,
    all: Vec<Rule>,
    keywords: AhoCorasick,
    /// For each keyword, whose it is, and how far after it a match may reach.
    owners: Vec<(Vec<usize>, usize)>,
}

struct Rule {
    id: String,
    /// As TOML.
    source: String,
    compiled: OnceLock<Option<Scanner>>,
}

/// The rules could not be read.
#[derive(Debug)]
pub(super) struct Unreadable;

/// The rule that recognises a secret in `text`, if one does.
pub(super) fn find(text: &str) -> Result<Option<String>, Unreadable> {
    let rules = RULES.as_ref().ok_or(Unreadable)?;
    for (index, places) in rules.places(text) {
        let rule = &rules.all[index];
        let scanner = rule.compiled.get_or_init(|| {
            let source = format!("{}{RULE}{}", rules.head, rule.source);
            let scanner = Scanner::from_toml(&source).ok()?;
            Some(scanner.with_config(ScanConfig::proxy()))
        });
        let scanner = scanner.as_ref().ok_or(Unreadable)?;
        for place in places {
            if !scanner.scan_bytes("", &text.as_bytes()[place]).is_empty() {
                return Ok(Some(rule.id.clone()));
            }
        }
    }
    Ok(None)
}

impl Rules {
    fn read() -> Option<Self> {
        let parsed: RulesetConfig = toml::from_str(BUNDLED_RULES).ok()?;
        let mut sources = BUNDLED_RULES.split(RULE);
        let head = sources.next()?;
        let head = head
            .lines()
            .filter(|line| !line.starts_with("paths"))
            .flat_map(|line| [line, "\n"])
            .collect();
        let sources: Vec<&str> = sources.collect();
        if sources.len() != parsed.rules.len() {
            return None;
        }
        let mut rules = Vec::new();
        let mut owners: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (rule, source) in parsed.rules.into_iter().zip(sources) {
            if rule.id.starts_with("kingfisher.") || rule.regex.is_none() {
                continue;
            }
            // A rule without keywords would have to be applied to all text; the set has none.
            for keyword in &rule.keywords {
                owners
                    .entry(keyword.to_lowercase())
                    .or_default()
                    .push(rules.len());
            }
            rules.push(Rule {
                id: rule.id,
                source: source.to_owned(),
                compiled: OnceLock::new(),
            });
        }
        let keywords = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(owners.keys())
            .ok()?;
        let owners = owners
            .into_iter()
            .map(|(keyword, rules)| {
                let after = if keyword.starts_with(ARMOUR) {
                    AFTER_ARMOUR
                } else {
                    AFTER
                };
                (rules, after)
            })
            .collect();
        Some(Self {
            head,
            all: rules,
            keywords,
            owners,
        })
    }

    /// Where in `text` each rule is to be applied, by the rule's index.
    fn places(&self, text: &str) -> BTreeMap<usize, Vec<Range<usize>>> {
        let mut places: BTreeMap<usize, Vec<Range<usize>>> = BTreeMap::new();
        for keyword in self.keywords.find_overlapping_iter(text) {
            let (rules, after) = &self.owners[keyword.pattern().as_usize()];
            let start = keyword.start().saturating_sub(BEFORE);
            let end = (keyword.end() + after).min(text.len());
            for rule in rules {
                let places = places.entry(*rule).or_default();
                match places.last_mut() {
                    Some(last) if start <= last.end => last.end = last.end.max(end),
                    _ => places.push(start..end),
                }
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_set_is_read_whole_and_each_rule_can_be_reached() {
        let rules = RULES.as_ref().unwrap();
        assert!(rules.all.len() >= 230, "{} rules", rules.all.len());
        let reached: std::collections::BTreeSet<usize> = rules
            .owners
            .iter()
            .flat_map(|(owners, _)| owners.iter().copied())
            .collect();
        assert_eq!(reached.len(), rules.all.len());
    }
}
