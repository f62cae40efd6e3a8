//! The hub: where it is, who we are to it, and one request at a time to it.
//!
//! hf-hub gives the addresses, the cache and the token's file. What it asks is sent by our own
//! client: its own would hand the token to whatever host a file is redirected to, waits without
//! limit, and does not hold what comes to a hash.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use hf_hub::api::tokio::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use reqwest::header::{HeaderMap, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;

use super::catalogue::Entry;
use super::digest::Digest;
use super::error::{ModelError, ModelErrorKind};
use super::names;

const PUBLIC_HUB: &str = "https://huggingface.co";
const USER_AGENT: &str = concat!("tandem/", env!("CARGO_PKG_VERSION"));

/// From the hub to the host that has the file there are one or two; more is a circle.
const MOST_REDIRECTS: usize = 5;

/// The description of a repository of thousands of files is a few MiB.
const LARGEST_DESCRIPTION: usize = 32 << 20;

/// What the environment says about the hub, by the rules of Hugging Face's own tools.
#[derive(Debug, Clone, Default)]
pub struct HubEnvironment {
    /// `HF_ENDPOINT`; without it, the public hub.
    pub endpoint: Option<String>,
    /// `HF_TOKEN`, or what stands in the file that `hf auth login` writes.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE`: nothing is asked of the hub.
    pub offline: bool,
    /// The folder in which Hugging Face's tools keep what they downloaded.
    pub cache: Option<PathBuf>,
}

/// An access token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a connection to stand.
    pub connect: Duration,
    /// For the next bytes.
    pub idle: Duration,
    /// Tries after the first that brought nothing, for failures that may pass.
    pub retries: u32,
    /// The pause before the first of them; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause, also when the hub asks for a longer one: then it is given up.
    pub longest_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            retries: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_mins(1),
        }
    }
}

/// A file as the hub, the cache or the catalogue describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub path: String,
    pub bytes: u64,
    pub digest: Digest,
}

/// A commit and the files of it that make a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub commit: String,
    pub files: Vec<Wanted>,
}

/// See the module.
pub struct Hub {
    api: Api,
    endpoint: Url,
    token: Option<Token>,
    pub(super) offline: bool,
    pub(super) cache: Option<Cache>,
    /// Made on first need: it reads the system's certificates, which takes a while.
    client: OnceLock<Client>,
    pub(super) limits: Limits,
}

impl Token {
    /// A token, if there is one between the white space.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let token = text.trim();
        let sound = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        sound.then(|| Self(token.into()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl HubEnvironment {
    /// Reads the variables of Hugging Face's tools, and the token's file where `HF_TOKEN` says
    /// nothing.
    #[must_use]
    pub fn read(variable: impl Fn(&str) -> Option<OsString>, home: Option<&Path>) -> Self {
        let said = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| said(name).and_then(|value| value.into_string().ok());
        let folder = |name: &str| said(name).map(PathBuf::from);
        let own = folder("HF_HOME")
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(home?.join(".cache").join("huggingface")));
        let token_in_file = || match folder("HF_TOKEN_PATH") {
            Some(file) => std::fs::read_to_string(file).ok(),
            None => Cache::new(own.as_ref()?.join("hub")).token(),
        };
        Self {
            endpoint: text("HF_ENDPOINT"),
            token: text("HF_TOKEN")
                .or_else(token_in_file)
                .as_deref()
                .and_then(Token::new),
            offline: text("HF_HUB_OFFLINE").is_some_and(|value| {
                ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
            }),
            cache: folder("HF_HUB_CACHE").or_else(|| Some(own.as_ref()?.join("hub"))),
        }
    }
}

impl Hub {
    /// Prepares requests; nothing is sent.
    ///
    /// # Errors
    /// When `HF_ENDPOINT` is no address.
    pub fn new(environment: HubEnvironment, limits: Limits) -> Result<Self, ModelError> {
        let HubEnvironment {
            endpoint,
            token,
            offline,
            cache,
        } = environment;
        let endpoint = endpoint.unwrap_or_else(|| PUBLIC_HUB.to_owned());
        let endpoint = endpoint.trim_end_matches('/');
        let url = Url::parse(endpoint)
            .ok()
            .filter(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none()
            })
            .ok_or_else(|| {
                ModelError::new(
                    ModelErrorKind::Unreachable,
                    "HF_ENDPOINT is no address of a hub",
                    "Set it to an address such as `https://huggingface.co`, or unset it.",
                )
            })?;
        let may_have_token = url.scheme() == "https" || is_this_machine(&url);
        if token.is_some() && !may_have_token {
            tracing::warn!("HF_ENDPOINT is not encrypted: the token stays here");
        }
        // Its folder is only used for names; without a home there is nothing to find there.
        let names_only = Cache::new(cache.clone().unwrap_or_default());
        let api = ApiBuilder::from_cache(names_only)
            .with_endpoint(endpoint.to_owned())
            .with_token(None)
            .with_progress(false)
            .build()
            .map_err(|error| no_client(&error))?;
        Ok(Self {
            api,
            token: token.filter(|_| may_have_token),
            endpoint: url,
            offline,
            cache: cache.map(Cache::new),
            client: OnceLock::new(),
            limits,
        })
    }

    /// Where a file of a repository is.
    pub(super) fn file_url(
        &self,
        repository: &str,
        commit: &str,
        path: &str,
    ) -> Result<Url, ModelError> {
        let repo = Repo::with_revision(repository.to_owned(), RepoType::Model, commit.to_owned());
        // hf-hub takes the path as it is.
        let escaped = path
            .replace('%', "%25")
            .replace('#', "%23")
            .replace('?', "%3F");
        parsed(&self.api.repo(repo).url(&escaped))
    }

    /// What the hub says about a model's files: one request, without retries.
    pub(super) async fn describe(&self, entry: &Entry, revision: &str) -> Result<Plan, ModelError> {
        self.online()?;
        let repo = Repo::with_revision(
            entry.repository.clone(),
            RepoType::Model,
            revision.to_owned(),
        );
        let request = self.api.repo(repo).info_request();
        // With sizes and hashes.
        let request = request.query(&[("blobs", "true")]).build();
        let request = request.map_err(|error| no_client(&error))?;
        let what = format!("{} at {revision}", entry.repository);
        let mut response = self.get(parsed(request.url().as_str())?, None).await?;
        if !response.status().is_success() {
            return Err(refusal(
                response.status(),
                response.headers(),
                &what,
                self.token.is_some(),
            ));
        }
        let mut body = Vec::new();
        while let Some(bytes) = response
            .chunk()
            .await
            .map_err(|error| broken(&what, &error))?
        {
            body.extend_from_slice(&bytes);
            if body.len() > LARGEST_DESCRIPTION {
                return Err(nonsense(&what, "the hub's description of it has no end"));
            }
        }
        let described = serde_json::from_slice(&body).map_err(|error| {
            nonsense(
                &what,
                &format!("the hub's description makes no sense ({error})"),
            )
        })?;
        plan(entry, described)
    }

    /// Asks for `url`, from a byte on, and goes where the hub points; the token goes to the hub
    /// alone.
    pub(super) async fn get(&self, url: Url, from: Option<u64>) -> Result<Response, ModelError> {
        self.online()?;
        let client = if let Some(client) = self.client.get() {
            client
        } else {
            let made = client(&self.endpoint, self.limits)?;
            self.client.get_or_init(|| made)
        };
        let mut url = url;
        for _ in 0..=MOST_REDIRECTS {
            let mut request = client.get(url.clone());
            if let Some(token) = &self.token
                && url.origin() == self.endpoint.origin()
            {
                request = request.bearer_auth(&token.0);
            }
            if let Some(from) = from {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request
                .send()
                .await
                .map_err(|error| broken(url.host_str().unwrap_or("the hub"), &error))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let target = response.headers().get(LOCATION);
            let next = target
                .and_then(|target| target.to_str().ok())
                .and_then(|target| url.join(target).ok())
                .filter(|next| matches!(next.scheme(), "http" | "https"))
                // What was asked for in secret is not fetched in the clear.
                .filter(|next| next.scheme() == "https" || url.scheme() == "http");
            url = next.ok_or_else(|| {
                nonsense(
                    url.host_str().unwrap_or("the hub"),
                    "it points to no address",
                )
            })?;
        }
        Err(nonsense(
            url.host_str().unwrap_or("the hub"),
            "it points from one address to the next",
        ))
    }

    /// What a status other than success means for `what`.
    pub(super) fn refusal(&self, response: &Response, what: &str) -> ModelError {
        refusal(
            response.status(),
            response.headers(),
            what,
            self.token.is_some(),
        )
    }

    fn online(&self) -> Result<(), ModelError> {
        if self.offline {
            return Err(ModelError::new(
                ModelErrorKind::Offline,
                "HF_HUB_OFFLINE forbids to ask the hub, and the model is not in its cache",
                "Unset it to download the model.",
            ));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Described {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// The files of a description that make the model, each held to what catalogue and hub say.
fn plan(entry: &Entry, described: Described) -> Result<Plan, ModelError> {
    let repository = &entry.repository;
    if !names::is_commit(&described.sha) {
        return Err(nonsense(repository, "the hub names no commit"));
    }
    if names::is_commit(&entry.revision) && entry.revision != described.sha {
        return Err(nonsense(repository, "the hub answers with another commit"));
    }
    let included = entry.included()?;
    let mut files = Vec::new();
    for sibling in described.siblings {
        let known = entry
            .files
            .iter()
            .find(|file| file.path == sibling.rfilename);
        if known.is_none() && !included.is_match(&sibling.rfilename) {
            continue;
        }
        let path = sibling.rfilename;
        if names::file_path(&path).is_none() {
            let what = format!("`{}` is no safe path for a file", path.escape_debug());
            return Err(nonsense(repository, &what));
        }
        let (lfs_hash, lfs_size) = sibling
            .lfs
            .map_or((None, None), |lfs| (lfs.sha256, lfs.size));
        let hash = lfs_hash.or(sibling.blob_id);
        let digest = hash.as_deref().and_then(Digest::of_name);
        let bytes = lfs_size.or(sibling.size);
        let (Some(digest), Some(bytes)) = (digest, bytes) else {
            let what = format!("the hub tells no size or hash of `{path}`");
            return Err(nonsense(repository, &what));
        };
        let expected = known
            .and_then(|file| file.sha256.clone())
            .map(Digest::Sha256);
        if expected
            .is_some_and(|expected| matches!(digest, Digest::Sha256(_)) && expected != digest)
            || known
                .and_then(|file| file.bytes)
                .is_some_and(|known| known != bytes)
        {
            return Err(ModelError::new(
                ModelErrorKind::WrongContent,
                format!("{repository}: `{path}` is not the file that the catalogue names"),
                "Do not use it before you know why; a catalogue of your own can name another \
                 revision.",
            ));
        }
        files.push(Wanted {
            path,
            bytes,
            digest,
        });
    }
    if let Some(missing) = entry
        .files
        .iter()
        .find(|known| !files.iter().any(|file| file.path == known.path))
    {
        return Err(ModelError::new(
            ModelErrorKind::Gone,
            format!("{repository} has no file `{}` any more", missing.path),
            "Look at the repository; a catalogue of your own can name another file or revision.",
        ));
    }
    if files.is_empty() {
        return Err(nonsense(repository, "it has none of the model's files"));
    }
    Ok(Plan {
        commit: described.sha,
        files,
    })
}

fn client(endpoint: &Url, limits: Limits) -> Result<Client, ModelError> {
    // An error means that one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        let builder = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(limits.connect)
            .read_timeout(limits.idle)
            .redirect(reqwest::redirect::Policy::none());
        if is_this_machine(endpoint) {
            builder.no_proxy()
        } else {
            builder
        }
    };
    let client = builder().build();
    // A hub in the clear may point to files behind TLS; where the machine has no certificates, it
    // must not, and the rest works.
    let client = client.or_else(|error| match endpoint.scheme() {
        "http" => builder().tls_certs_only([]).build(),
        _ => Err(error),
    });
    client.map_err(|error| no_client(&error))
}

fn is_this_machine(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let name = host.trim_start_matches('[').trim_end_matches(']');
        name == "localhost"
            || name
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    })
}

fn parsed(url: &str) -> Result<Url, ModelError> {
    Url::parse(url).map_err(|error| nonsense(url, &error.to_string()))
}

fn no_client(error: &dyn fmt::Display) -> ModelError {
    ModelError::new(
        ModelErrorKind::Unreachable,
        format!("no connection can be prepared: {error}"),
        "Check the system's certificates.",
    )
}

fn nonsense(what: &str, fact: &str) -> ModelError {
    ModelError::new(
        ModelErrorKind::Malformed,
        format!("{what}: {fact}"),
        "Check HF_ENDPOINT, or try again later.",
    )
}

/// A connection that did not stand or broke. The error's own text is left out where it holds the
/// address, which a content network signs.
pub(super) fn broken(what: &str, error: &reqwest::Error) -> ModelError {
    let why = if error.is_connect() {
        "no connection to the hub"
    } else if error.is_timeout() {
        "the hub fell silent"
    } else {
        "the connection broke"
    };
    ModelError::new(
        ModelErrorKind::Unreachable,
        format!("{what}: {why}"),
        "Check the network and pull again: what has arrived is kept.",
    )
}

fn refusal(status: StatusCode, headers: &HeaderMap, what: &str, with_token: bool) -> ModelError {
    let code = headers
        .get("x-error-code")
        .and_then(|code| code.to_str().ok())
        .unwrap_or_default();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let (fact, next_step) = if code == "GatedRepo" {
                (
                    "its owner lets in only those who accepted the terms",
                    "Accept them on the model's page, then set HF_TOKEN to a token of yours or run \
                     `hf auth login`, and pull again.",
                )
            } else if with_token {
                (
                    "the hub does not let this token read it, or there is no such repository",
                    "Check the name, and that HF_TOKEN (or the file of `hf auth login`) holds a \
                     token that is valid and may read it.",
                )
            } else {
                (
                    "there is no such repository, or the hub wants to know who asks",
                    "Check the name; for a private model set HF_TOKEN or run `hf auth login`.",
                )
            };
            ModelError::new(
                ModelErrorKind::Refused,
                format!("{what}: {fact}"),
                next_step,
            )
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            let fact = match code {
                "RevisionNotFound" => "there is no such revision (any more)",
                "EntryNotFound" => "there is no such file (any more)",
                "RepoNotFound" => "there is no such repository (any more)",
                _ => "the hub does not have it (any more)",
            };
            ModelError::new(
                ModelErrorKind::Gone,
                format!("{what}: {fact}"),
                "Look for it on the hub; a catalogue of your own (`local.catalogue`) can name \
                 another repository or revision.",
            )
        }
        status
            if status.is_server_error()
                || matches!(
                    status,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                ) =>
        {
            let mut error = ModelError::new(
                ModelErrorKind::Busy,
                format!(
                    "{what}: the hub has too much to do (status {})",
                    status.as_u16()
                ),
                "Try again later: what has arrived is kept.",
            );
            error.retry_after = retry_after(headers, SystemTime::now());
            error
        }
        status => nonsense(
            what,
            &format!("the hub answers with status {}", status.as_u16()),
        ),
    }
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}
