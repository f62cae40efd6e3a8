//! Files that hold secrets, by their names.

use std::path::Path;
use std::sync::LazyLock;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Matched without regard to case, against the file's name and against its whole path.
/// Sources: the lists of github/gitignore (`Global/*.gitignore`), `.gitguardian` and trufflehog's
/// file detectors, and the default names in the manuals of OpenSSH, GnuPG, Java's keytool, curl,
/// npm, PyPI's twine, Docker, Kubernetes, AWS, Google Cloud and Terraform.
const SENSITIVE: &[&str] = &[
    ".env",
    ".env.*",
    "*.env",
    ".envrc",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ecdsa_sk",
    "id_ed25519",
    "id_ed25519_sk",
    "*.pem",
    "*.key",
    "*.p8",
    "*.p12",
    "*.pfx",
    "*.pkcs12",
    "*.ppk",
    "*.jks",
    "*.jceks",
    "*.keystore",
    "*.bks",
    "*.kdb",
    "*.kdbx",
    "*.agekey",
    "*.keychain",
    "*.keychain-db",
    "*.asc",
    "*.gpg",
    "*.ovpn",
    "*.tfvars",
    "*.tfstate",
    "*.tfstate.*",
    ".netrc",
    "_netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".my.cnf",
    ".htpasswd",
    ".git-credentials",
    ".dockercfg",
    ".vault-token",
    ".terraformrc",
    "credentials",
    "credentials.json",
    "credentials.toml",
    "credentials.yml",
    "credentials.yaml",
    "credentials.xml",
    "client_secret*.json",
    "service-account*.json",
    "secrets.yml",
    "secrets.yaml",
    "secrets.json",
    "secrets.toml",
    "secret.yml",
    "secret.yaml",
    "secret.json",
    "master.key",
    "kubeconfig",
    "**/.ssh/**",
    "**/.gnupg/**",
    "**/.aws/**",
    "**/.kube/config",
    "**/.docker/config.json",
    "**/.config/gcloud/**",
    "**/.config/gh/hosts.yml",
    "**/.azure/**",
];

static SET: LazyLock<GlobSet> = LazyLock::new(|| {
    let mut set = GlobSetBuilder::new();
    for glob in SENSITIVE {
        // The list above is fixed and a test holds every entry to match something.
        if let Ok(glob) = GlobBuilder::new(glob).case_insensitive(true).build() {
            set.add(glob);
        }
    }
    set.build().unwrap_or_default()
});

/// Whether files of this name, or in this place, hold secrets.
pub(super) fn is_sensitive(file: &Path) -> bool {
    let name = file.file_name().map(Path::new);
    SET.is_match(file) || name.is_some_and(|name| SET.is_match(name))
}
