//! Which runtimes are tried for a Core ML bundle, in which order, and which healthy one serves.

use std::fmt;
use std::str::FromStr;

/// A runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuntimeName {
    /// Core ML by its own interface.
    CoreMl,
    /// Core ML through the crate candle-coreml.
    CandleCoreMl,
    /// The components executed on the CPU, from the original weights.
    Reference,
}

impl RuntimeName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CoreMl, Self::CandleCoreMl, Self::Reference];

    /// Its name on the command line and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CoreMl => "coreml",
            Self::CandleCoreMl => "candle-coreml",
            Self::Reference => "reference",
        }
    }
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RuntimeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|name| name.as_str() == text);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("there is no runtime {text}; there are {known}")
        })
    }
}

/// The system that a binary is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// macOS, which has Core ML.
    MacOs,
    /// Any other.
    Other,
}

impl System {
    /// The one that this binary is for.
    #[must_use]
    pub fn here() -> Self {
        if cfg!(target_os = "macos") {
            Self::MacOs
        } else {
            Self::Other
        }
    }
}

/// The runtimes to try, the preferred one first.
///
/// The reference runtime is never tried unasked: it needs the original weights, and where it would
/// serve, the portable engine serves better.
///
/// # Errors
/// When a runtime is asked for that this system does not have; with the next step.
pub fn to_try(asked: Option<RuntimeName>, system: System) -> Result<Vec<RuntimeName>, String> {
    match (asked, system) {
        (None, System::MacOs) => Ok(vec![RuntimeName::CoreMl, RuntimeName::CandleCoreMl]),
        (None, System::Other) => Ok(Vec::new()),
        (Some(RuntimeName::CoreMl | RuntimeName::CandleCoreMl), System::Other) => Err(
            "Core ML exists on macOS alone. Use `--runtime reference` to check a bundle here, or \
             a GGUF model to generate."
                .to_owned(),
        ),
        (Some(name), System::MacOs) | (Some(name @ RuntimeName::Reference), System::Other) => {
            Ok(vec![name])
        }
    }
}

/// What a runtime was measured to do when it was probed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probed {
    /// The runtime.
    pub name: RuntimeName,
    /// Whether it generated what it should.
    pub healthy: bool,
    /// Tokens a second, while decoding.
    pub tokens_per_second: f64,
}

/// By how much the second choice must be faster to serve in the first one's place. Two measurements
/// of one runtime differ by as much on a machine that does other things; chosen arbitrarily beyond
/// that.
const CLEARLY_FASTER: f64 = 1.1;

/// The runtime that serves: the fastest healthy one, where an earlier one wins unless a later one is
/// clearly faster. `probed` is in the order of [`to_try`].
#[must_use]
pub fn serves(probed: &[Probed]) -> Option<RuntimeName> {
    let usable = |probed: &&Probed| probed.healthy && probed.tokens_per_second.is_finite();
    let best = probed.iter().filter(usable).reduce(|best, next| {
        if next.tokens_per_second > best.tokens_per_second * CLEARLY_FASTER {
            next
        } else {
            best
        }
    });
    best.map(|probed| probed.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE_ML: RuntimeName = RuntimeName::CoreMl;
    const CANDLE: RuntimeName = RuntimeName::CandleCoreMl;
    const REFERENCE: RuntimeName = RuntimeName::Reference;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in RuntimeName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        let error = "ane".parse::<RuntimeName>().unwrap_err();
        assert!(
            error.contains("coreml, candle-coreml, reference"),
            "{error}"
        );
    }

    #[test]
    fn each_system_tries_what_it_has() {
        let check = |asked, system, expected: &[RuntimeName]| {
            assert_eq!(to_try(asked, system).as_deref(), Ok(expected));
        };
        check(None, System::MacOs, &[CORE_ML, CANDLE]);
        check(None, System::Other, &[]);
        check(Some(CANDLE), System::MacOs, &[CANDLE]);
        check(Some(REFERENCE), System::MacOs, &[REFERENCE]);
        check(Some(REFERENCE), System::Other, &[REFERENCE]);
        for asked in [CORE_ML, CANDLE] {
            let error = to_try(Some(asked), System::Other).unwrap_err();
            assert!(error.contains("--runtime reference"), "{error}");
        }
    }

    #[test]
    fn the_faster_healthy_one_serves() {
        let check = |probed: &[(RuntimeName, bool, f64)], expected| {
            let probed: Vec<Probed> = probed
                .iter()
                .map(|&(name, healthy, tokens_per_second)| Probed {
                    name,
                    healthy,
                    tokens_per_second,
                })
                .collect();
            assert_eq!(serves(&probed), expected);
        };
        check(&[], None);
        check(&[(CORE_ML, false, 90.0), (CANDLE, false, 5.0)], None);
        check(&[(CORE_ML, true, 87.0), (CANDLE, true, 5.3)], Some(CORE_ML));
        check(&[(CORE_ML, false, 87.0), (CANDLE, true, 5.3)], Some(CANDLE));
        check(&[(CORE_ML, true, 20.0), (CANDLE, true, 40.0)], Some(CANDLE));
        // As good as equal: the first choice stays.
        check(
            &[(CORE_ML, true, 40.0), (CANDLE, true, 41.0)],
            Some(CORE_ML),
        );
        check(
            &[(CORE_ML, true, f64::NAN), (CANDLE, true, 5.0)],
            Some(CANDLE),
        );
    }
}
