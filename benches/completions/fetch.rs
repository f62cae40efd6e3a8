//! Brings the packages of packages.json, each of one version and one hash, by their registries' own
//! clients: cargo, pip, npm, apt-get.
#![expect(
    clippy::print_stdout,
    reason = "downloads take a while, and people wait for them"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::measure::syntax::Language;

const PACKAGES: &str = include_str!("packages.json");

/// Where a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Registry {
    #[serde(rename = "crates.io")]
    CratesIo,
    #[serde(rename = "pypi")]
    PyPi,
    #[serde(rename = "npm")]
    Npm,
    #[serde(rename = "debian")]
    Debian,
}

/// A package that no model of ours was trained on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Package {
    pub registry: Registry,
    pub name: String,
    pub version: String,
    /// Of its source that is measured.
    pub language: Language,
    pub licence: String,
    /// Of the file that the registry sends.
    pub sha256: String,
}

impl Package {
    /// All of them.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        serde_json::from_str(PACKAGES).context("benches/completions/packages.json")
    }

    /// Its unpacked folder.
    pub fn folder(&self, corpus: &Path) -> PathBuf {
        let name = self.name.replace('/', "+");
        corpus
            .join(self.language.id())
            .join(format!("{name}-{}", self.version))
    }
}

/// Brings what is not there yet. What a registry does not give is said and left out.
pub fn fetch(corpus: &Path) -> anyhow::Result<()> {
    let missing: Vec<Package> = Package::all()?
        .into_iter()
        .filter(|package| !package.folder(corpus).exists())
        .collect();
    let crates: Vec<&Package> = missing
        .iter()
        .filter(|package| package.registry == Registry::CratesIo)
        .collect();
    fs::create_dir_all(corpus).with_context(|| corpus.display().to_string())?;
    // Beside the packages, so that a folder gets its name once it is whole.
    let work = tempfile::tempdir_in(corpus)?;
    if !crates.is_empty() {
        println!("fetching {} crates", crates.len());
        vendor(&crates, work.path())?;
    }
    for package in &missing {
        let name = format!("{} {}", package.name, package.version);
        let brought = bring(package, work.path()).and_then(|unpacked| {
            let folder = package.folder(corpus);
            fs::create_dir_all(folder.parent().context("a folder in a folder")?)?;
            Ok(fs::rename(unpacked, folder)?)
        });
        match brought {
            Ok(()) => println!("{name}: there"),
            Err(error) => println!("{name}: left out: {error:#}"),
        }
    }
    Ok(())
}

/// Has cargo download and unpack `crates`; their dependencies come along and are not used.
fn vendor(crates: &[&Package], work: &Path) -> anyhow::Result<()> {
    let mut manifest =
        "[package]\nname = \"corpus\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n"
            .to_owned();
    for package in crates {
        let Package { name, version, .. } = package;
        manifest.extend([
            name.as_str(),
            " = { version = \"=",
            version,
            "\", default-features = false }\n",
        ]);
    }
    fs::create_dir_all(work.join("crates/src"))?;
    fs::write(work.join("crates/Cargo.toml"), manifest)?;
    fs::write(work.join("crates/src/lib.rs"), "")?;
    let arguments = ["vendor", "--quiet", "--versioned-dirs", "vendor"];
    run("cargo", &arguments, &work.join("crates"))
}

/// Downloads, checks and unpacks a package, and gives the folder it is in.
fn bring(package: &Package, work: &Path) -> anyhow::Result<PathBuf> {
    let Package { name, version, .. } = package;
    if package.registry == Registry::CratesIo {
        let folder = work.join(format!("crates/vendor/{name}-{version}"));
        // cargo has held the download to this hash, and each file to its own.
        let sums =
            fs::read(folder.join(".cargo-checksum.json")).context("cargo did not bring it")?;
        let sums: serde_json::Value = serde_json::from_slice(&sums)?;
        ensure_hash(package, sums["package"].as_str().unwrap_or_default())?;
        return Ok(folder);
    }
    let download = tempfile::tempdir_in(work)?;
    let wanted = match package.registry {
        Registry::PyPi => format!("{name}=={version}"),
        Registry::Npm => format!("{name}@{version}"),
        Registry::CratesIo | Registry::Debian => format!("{name}={version}"),
    };
    let (program, arguments): (&str, &[&str]) = match package.registry {
        // A wheel for any platform, whatever Python runs here.
        Registry::PyPi => (
            "python3",
            &[
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--python-version",
                "3.13",
                "--implementation",
                "py",
                "--abi",
                "none",
                "--platform",
                "any",
            ],
        ),
        Registry::Npm => ("npm", &["pack", "--ignore-scripts", "--silent"]),
        Registry::CratesIo | Registry::Debian => ("apt-get", &["-qq", "download"]),
    };
    let arguments: Vec<&str> = arguments.iter().copied().chain([&*wanted]).collect();
    run(program, &arguments, download.path())?;
    let mut files = fs::read_dir(download.path())?;
    let file = files.next().context("nothing was downloaded")??.path();
    ensure_hash(package, &sha256(&fs::read(&file)?))?;
    let unpacked = work.join(format!("{}-unpacked", name.replace('/', "+")));
    fs::create_dir(&unpacked)?;
    let (from, to) = (file.display().to_string(), unpacked.display().to_string());
    match package.registry {
        Registry::PyPi => zip::ZipArchive::new(File::open(&file)?)?.extract(&unpacked)?,
        Registry::Npm => {
            let arguments = ["-xzf", &from, "-C", &to, "--strip-components=1"];
            run("tar", &arguments, work)?;
        }
        Registry::CratesIo | Registry::Debian => run("dpkg-deb", &["-x", &from, &to], work)?,
    }
    Ok(unpacked)
}

fn sha256(bytes: &[u8]) -> String {
    let digits = |byte: &u8| format!("{byte:02x}");
    Sha256::digest(bytes).iter().map(digits).collect()
}

fn ensure_hash(package: &Package, found: &str) -> anyhow::Result<()> {
    ensure!(
        found == package.sha256,
        "its SHA-256 is {found}, not {}: it is not the package that was meant",
        package.sha256
    );
    Ok(())
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .with_context(|| format!("{program} does not start: install it, then fetch again"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed: {}", said.trim());
    }
    Ok(())
}
