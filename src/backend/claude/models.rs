//! What is known of Claude's models: prices and how they think. Data, with its sources.
//!
//! Prices: <https://platform.claude.com/docs/en/about-claude/pricing> and the models' own pages
//! (`/docs/en/models/<model>/overview`), as of November 2026. Thinking:
//! <https://platform.claude.com/docs/en/build-with-claude/thinking> and the migration guides.

use super::answer::TokenCounts;

/// Billionths of a US dollar. A price of one dollar a million tokens is a thousand of these a token,
/// so that every listed price is a whole number.
pub type NanoDollars = u64;

/// Prices of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Of the prompt, neither read from nor written to the cache.
    pub input: NanoDollars,
    /// Of the prompt, written to the cache for five minutes.
    pub cache_write: NanoDollars,
    /// Of the prompt, read from the cache.
    pub cache_read: NanoDollars,
    /// Of the answer, thinking included.
    pub output: NanoDollars,
}

/// Whether a model thinks before it answers, and what it takes to prevent that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// Only if asked.
    WhenAsked,
    /// Unless `thinking.type` is `disabled`.
    UnlessDisabled,
    /// Unless `thinking.type` is `between_tools`.
    UnlessBetweenTools,
    /// Always; `disabled` is an error. The effort can be lowered.
    Always,
    /// Not known: the request must do with or without.
    Unknown,
}

/// What is known of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    id: &'static str,
    price: Price,
    /// Above so many tokens of prompt, the whole request costs this.
    long: Option<(u64, Price)>,
    /// How it thinks.
    pub thinking: Thinking,
}

const fn dollars(input: NanoDollars, cache_read: NanoDollars, output: NanoDollars) -> Price {
    Price {
        input,
        // 1.25 times the input for every model ("5m cache writes").
        cache_write: input + input / 4,
        cache_read,
        output,
    }
}

const fn model(id: &'static str, price: Price, thinking: Thinking) -> Model {
    Model {
        id,
        price,
        long: None,
        thinking,
    }
}

const MODELS: [Model; 17] = [
    Model {
        id: "claude-haiku-5-5",
        price: dollars(100, 10, 500),
        long: Some((100_000, dollars(500, 50, 2_500))),
        thinking: Thinking::UnlessDisabled,
    },
    model(
        "claude-sonnet-5-5",
        dollars(2_000, 100, 10_000),
        Thinking::UnlessBetweenTools,
    ),
    model(
        "claude-opus-5-5",
        dollars(4_000, 200, 20_000),
        Thinking::Always,
    ),
    model(
        "claude-fable-5-1",
        dollars(10_000, 250, 50_000),
        Thinking::Always,
    ),
    model(
        "claude-mythos-5-1",
        dollars(10_000, 250, 50_000),
        Thinking::Always,
    ),
    model(
        "claude-fable-5",
        dollars(10_000, 1_000, 50_000),
        Thinking::Always,
    ),
    model(
        "claude-mythos-5",
        dollars(10_000, 1_000, 50_000),
        Thinking::Always,
    ),
    model(
        "claude-sonnet-5",
        dollars(2_000, 200, 10_000),
        Thinking::UnlessDisabled,
    ),
    model(
        "claude-opus-5",
        dollars(5_000, 500, 25_000),
        Thinking::UnlessDisabled,
    ),
    model(
        "claude-opus-4-8",
        dollars(5_000, 500, 25_000),
        Thinking::WhenAsked,
    ),
    model(
        "claude-opus-4-7",
        dollars(5_000, 500, 25_000),
        Thinking::WhenAsked,
    ),
    model(
        "claude-opus-4-6",
        dollars(5_000, 500, 25_000),
        Thinking::WhenAsked,
    ),
    model(
        "claude-opus-4-5",
        dollars(5_000, 500, 25_000),
        Thinking::WhenAsked,
    ),
    model(
        "claude-opus-4-1",
        dollars(15_000, 1_500, 75_000),
        Thinking::WhenAsked,
    ),
    model(
        "claude-sonnet-4-6",
        dollars(3_000, 300, 15_000),
        Thinking::WhenAsked,
    ),
    model(
        "claude-sonnet-4-5",
        dollars(3_000, 300, 15_000),
        Thinking::WhenAsked,
    ),
    model(
        "claude-haiku-4-5",
        dollars(1_000, 100, 5_000),
        Thinking::WhenAsked,
    ),
];

/// A model we know nothing of costs what the dearest one ever listed did, cache reads at full
/// price: a spend cap may be reached early, never late.
const UNKNOWN: Model = model("", dollars(15_000, 15_000, 75_000), Thinking::Unknown);

/// What is known of the model `id`: an alias, or an alias with a date (`-20251001`).
#[must_use]
pub fn lookup(id: &str) -> Model {
    let is_date = |ending: &str| {
        ending
            .strip_prefix('-')
            .is_some_and(|date| date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit()))
    };
    MODELS
        .into_iter()
        .find(|model| {
            id.strip_prefix(model.id)
                .is_some_and(|ending| ending.is_empty() || is_date(ending))
        })
        .unwrap_or(UNKNOWN)
}

impl Model {
    /// What a request cost.
    #[must_use]
    pub fn cost(&self, counts: &TokenCounts) -> NanoDollars {
        let price = match self.long {
            Some((above, price)) if counts.prompt() > above => price,
            _ => self.price,
        };
        [
            (counts.input, price.input),
            (counts.cache_creation, price.cache_write),
            (counts.cache_read, price.cache_read),
            (counts.output, price.output),
        ]
        .into_iter()
        .fold(0, |sum: NanoDollars, (tokens, price)| {
            sum.saturating_add(tokens.saturating_mul(price))
        })
    }

    /// The most that a request can cost: all of the prompt written to the cache, and the longest
    /// answer.
    #[must_use]
    pub fn highest_cost(&self, prompt_tokens: u64, max_tokens: u64) -> NanoDollars {
        self.cost(&TokenCounts {
            cache_creation: prompt_tokens,
            output: max_tokens,
            ..TokenCounts::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(input: u64, cache_creation: u64, cache_read: u64, output: u64) -> TokenCounts {
        TokenCounts {
            input,
            cache_creation,
            cache_read,
            output,
        }
    }

    #[test]
    fn a_million_tokens_cost_the_listed_dollars() {
        const DOLLAR: NanoDollars = 1_000_000_000;
        let million = 1_000_000;
        for (id, counts, cost) in [
            ("claude-opus-5-5", counts(million, 0, 0, 0), 4 * DOLLAR),
            ("claude-opus-5-5", counts(0, million, 0, 0), 5 * DOLLAR),
            ("claude-opus-5-5", counts(0, 0, million, 0), DOLLAR / 5),
            ("claude-opus-5-5", counts(0, 0, 0, million), 20 * DOLLAR),
            ("claude-haiku-5-5", counts(100_000, 0, 0, 0), DOLLAR / 100),
            (
                "claude-haiku-5-5",
                counts(100_000, 0, 100_000, 0),
                DOLLAR * 55 / 1000,
            ),
            (
                "claude-haiku-4-5-20251001",
                counts(million, 0, 0, 0),
                DOLLAR,
            ),
            ("claude-fable-5-1", counts(0, 0, million, 0), DOLLAR / 4),
            ("somebody-else", counts(million, 0, 0, 0), 15 * DOLLAR),
        ] {
            assert_eq!(lookup(id).cost(&counts), cost, "{id} {counts:?}");
        }
        assert_eq!(
            lookup("claude-opus-5-5").cost(&counts(u64::MAX, 1, 1, 1)),
            u64::MAX
        );
    }

    #[test]
    fn a_model_is_known_by_its_alias_with_or_without_date() {
        for (id, known) in [
            ("claude-opus-5-5", true),
            ("claude-opus-5-5-20260922", true),
            ("claude-opus-5-50", false),
            ("claude-opus-5-9", false),
            ("claude-opus-5-5-latest", false),
            ("", false),
        ] {
            assert_eq!(lookup(id) != UNKNOWN, known, "{id}");
        }
    }
}
