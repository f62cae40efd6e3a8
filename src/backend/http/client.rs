//! Connections: to whom they may go, and what is never followed.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::{Client, Url};

use crate::inference::GenerateError;

use super::{Peer, bounded, failure};

const USER_AGENT: &str = concat!("tandem/", env!("CARGO_PKG_VERSION"));

/// A client for each way to connect; the last one is kept, with its open connections.
#[derive(Default)]
pub struct Clients(Mutex<Option<(Way, Client)>>);

/// What a client is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    tls: bool,
    this_machine: bool,
    connect_timeout: Duration,
}

impl Clients {
    /// A client for `url`.
    ///
    /// # Errors
    /// When TLS is needed and the system's certificates cannot be read.
    pub async fn get(
        &self,
        peer: &Peer,
        url: &Url,
        connect_timeout: Duration,
    ) -> Result<Client, GenerateError> {
        let way = Way {
            tls: url.scheme() == "https",
            this_machine: is_this_machine(url),
            connect_timeout: bounded(connect_timeout),
        };
        if let Some((kept, client)) = &*self.kept()
            && *kept == way
        {
            return Ok(client.clone());
        }
        if !way.tls && !way.this_machine {
            tracing::warn!(
                to = peer.group,
                "text is sent over an unencrypted connection"
            );
        }
        // Reads the system's certificates.
        let client = tokio::task::spawn_blocking(move || build(way))
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or_else(failure::no_tls)?;
        *self.kept() = Some((way, client.clone()));
        Ok(client)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<(Way, Client)>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn build(way: Way) -> reqwest::Result<Client> {
    // An error means that one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(way.connect_timeout)
        // A redirect would take the key to another host.
        .redirect(reqwest::redirect::Policy::none());
    if way.this_machine {
        builder = builder.no_proxy();
    }
    if !way.tls {
        // No certificates are needed, and a machine may have none.
        builder = builder.tls_certs_only([]);
    }
    builder.build()
}

/// The address of `path` under `base`; `None` if that is no http or https URL.
#[must_use]
pub fn url(base: &str, path: &[&str]) -> Option<Url> {
    let mut url = Url::parse(base.trim()).ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return None;
    }
    url.path_segments_mut().ok()?.pop_if_empty().extend(path);
    url.set_query(None);
    url.set_fragment(None);
    Some(url)
}

fn is_this_machine(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_api() {
        for (base, expected) in [
            (
                "https://api.anthropic.com",
                Some("https://api.anthropic.com/v1/messages"),
            ),
            (
                "http://127.0.0.1:8080/",
                Some("http://127.0.0.1:8080/v1/messages"),
            ),
            (
                " https://gateway.example/claude?a=b#c ",
                Some("https://gateway.example/claude/v1/messages"),
            ),
            ("file:///etc/passwd", None),
            ("localhost:8080", None),
            ("", None),
        ] {
            let got = url(base, &["v1", "messages"]).map(String::from);
            assert_eq!(got.as_deref(), expected, "{base:?}");
        }
    }

    #[test]
    fn this_machine_is_reached_without_proxy() {
        for (url, expected) in [
            ("http://localhost:1", true),
            ("http://127.3.2.1", true),
            ("http://[::1]:80", true),
            ("https://api.anthropic.com", false),
            ("http://localhost.example.com", false),
        ] {
            assert_eq!(
                is_this_machine(&Url::parse(url).unwrap()),
                expected,
                "{url}"
            );
        }
    }

    #[test]
    fn a_client_for_https_can_be_built() {
        let way = Way {
            tls: true,
            this_machine: false,
            connect_timeout: Duration::from_secs(1),
        };
        // On a machine without certificates this fails as it should, and never panics.
        let _ = build(way);
    }
}
