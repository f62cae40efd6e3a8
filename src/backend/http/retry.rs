//! When to try again, and how long to wait.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

use super::bounded;
use super::failure::Failure;

/// The first pause is at most this, and so are its doublings at most [`LONGEST_PAUSE`]: what the
/// official SDKs do.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// The first pause's share of the time there is, so that all tries fit a short limit too.
const SHARE_OF_LIMIT: u32 = 40;

/// What a server may ask us to wait at most; anything longer is a mistake.
const LONGEST_WISH: Duration = Duration::from_hours(24);

/// Whether a failure with this status may pass by itself.
///
/// 408 and 409 (a lock's timeout) as in the official SDKs; 429, and 529 with the other 5xx. A server
/// that says `x-should-retry` knows better.
#[must_use]
pub fn may_pass(status: StatusCode, headers: &HeaderMap) -> bool {
    match headers
        .get("x-should-retry")
        .and_then(|value| value.to_str().ok())
    {
        Some("true") => true,
        Some("false") => false,
        _ => matches!(status.as_u16(), 408 | 409 | 429) || status.is_server_error(),
    }
}

/// How long the server asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date.
#[must_use]
pub fn wish(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    let number = |text: &str, unit: f64| {
        text.parse::<f64>()
            .ok()
            .and_then(|number| Duration::try_from_secs_f64(number * unit).ok())
    };
    text("retry-after-ms")
        .and_then(|text| number(text, 1e-3))
        .or_else(|| {
            let text = text(RETRY_AFTER.as_str())?;
            number(text, 1.0).or_else(|| {
                let date = httpdate::parse_http_date(text).ok()?;
                // A date that has passed asks for no pause.
                Some(date.duration_since(now).unwrap_or_default())
            })
        })
        .filter(|wish| *wish <= LONGEST_WISH)
}

/// The pause before the try after `failures` failures: exponential with full jitter. `random` lies
/// in 0..1, `limit` is the time that all tries have together.
#[must_use]
pub fn pause(failures: u32, limit: Duration, random: f64) -> Duration {
    let first = FIRST_PAUSE.min(limit / SHARE_OF_LIMIT);
    let longest = first
        .saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)))
        .min(LONGEST_PAUSE);
    longest.mul_f64(random.clamp(0.0, 1.0))
}

/// The pause before another try, or `None` where there is to be none: the failure is none that
/// passes, the tries are spent, or the time that all have together would be over.
#[must_use]
pub fn another(failure: &Failure, failures: u32, limits: &Tries) -> Option<Duration> {
    if !failure.may_pass || failures > limits.retries {
        return None;
    }
    let wish = failure.error.retry_after;
    let pause = wish.unwrap_or_else(|| pause(failures, limits.limit, rand::random()));
    (Instant::now() + pause < limits.deadline).then_some(pause)
}

/// How often and how long a request may be tried.
#[derive(Debug, Clone, Copy)]
pub struct Tries {
    /// Tries after the first.
    pub retries: u32,
    /// The time that all tries have together.
    pub limit: Duration,
    /// When that is over.
    pub deadline: Instant,
}

impl Tries {
    /// From now on.
    #[must_use]
    pub fn within(limit: Duration, retries: u32) -> Self {
        let limit = bounded(limit);
        Self {
            retries,
            limit,
            deadline: Instant::now() + limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    reqwest::header::HeaderName::from_static(name),
                    reqwest::header::HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn what_may_pass() {
        for (status, expected) in [
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (408, true),
            (409, true),
            (413, false),
            (422, false),
            (429, true),
            (500, true),
            (503, true),
            (529, true),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(may_pass(status, &HeaderMap::new()), expected, "{status}");
            assert!(!may_pass(status, &headers(&[("x-should-retry", "false")])));
            assert!(may_pass(status, &headers(&[("x-should-retry", "true")])));
        }
    }

    #[test]
    fn the_servers_wish_in_every_form() {
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110, section 5.6.7.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        for (pairs, expected) in [
            (&[][..], None),
            (&[("retry-after", "2")], Some(Duration::from_secs(2))),
            (&[("retry-after", "0.5")], Some(Duration::from_millis(500))),
            (&[("retry-after", "0")], Some(Duration::ZERO)),
            (&[("retry-after", "-3")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "1e300")], None),
            (&[("retry-after", "soon")], None),
            (
                &[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")],
                Some(Duration::from_secs(30)),
            ),
            (
                &[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")],
                Some(Duration::ZERO),
            ),
            (
                &[("retry-after", "9"), ("retry-after-ms", "250")],
                Some(Duration::from_millis(250)),
            ),
        ] {
            assert_eq!(wish(&headers(pairs), now), expected, "{pairs:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_fit_the_time_there_is() {
        let limit = Duration::from_secs(20);
        let longest: Vec<_> = (1..7).map(|n| pause(n, limit, 1.0).as_millis()).collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(pause(40, limit, 0.5), Duration::from_secs(4));
        assert_eq!(pause(3, limit, 0.0), Duration::ZERO);
        assert_eq!(
            pause(1, Duration::from_secs(2), 1.0),
            Duration::from_millis(50)
        );
    }
}
