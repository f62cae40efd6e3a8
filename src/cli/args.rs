//! The command line, as clap reads it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize as _;
use serde::de::value::{Error as ValueError, StrDeserializer};

use crate::backend::local::anemll::choice::RuntimeName;
use crate::config::{Mode, Span};
use crate::inference::Effort;

const AFTER_HELP: &str = "\
Without a command, tandem serves the client on its standard input: an editor (LSP) or an MCP host, \
told apart by the first byte.

Exit codes: 0 done · 1 failed · 2 the command line or the configuration is wrong · 3 the completion \
came to nothing · 4 no backend may or can serve the request.";

/// Code completions and tools, from a model on this machine, with Claude behind it.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, about, after_help = AFTER_HELP, max_term_width = 100)]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What holds for every command.
    #[command(flatten)]
    pub globals: Globals,
}

impl Cli {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// What clap says of a line that is wrong, or asks for help or the version.
    pub fn read(line: &[OsString]) -> Result<Self, clap::Error> {
        let mut cli = Self::try_parse_from(line)?;
        cli.globals.sets = sets(line);
        Ok(cli)
    }
}

/// Every `--set` of a command line that was read, in order. Of a flag that stands before a command and behind
/// it, clap keeps the latter alone, and one that was given up may have said `mode=local-only`.
fn sets(line: &[OsString]) -> Vec<String> {
    let mut words = line.iter().map(|word| word.to_string_lossy());
    let mut sets = Vec::new();
    while let Some(word) = words.next().filter(|word| word != "--") {
        if let Some(set) = word.strip_prefix("--set=") {
            sets.push(set.to_owned());
        } else if word == "--set" {
            sets.extend(words.next().map(Cow::into_owned));
        }
    }
    sets
}

/// Flags of every command.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Configuration")]
#[expect(clippy::struct_excessive_bools, reason = "flags are what it holds")]
pub struct Globals {
    /// Read this file instead of your own configuration
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which backends may answer
    #[arg(long, global = true, value_enum, value_name = "MODE")]
    pub mode: Option<ModeArg>,
    /// Nothing leaves this machine; the same as --mode local-only
    #[arg(long, global = true, conflicts_with = "mode")]
    pub local_only: bool,
    /// A model by its name, a GGUF file, or a folder with safetensors or an ANEMLL bundle
    #[arg(long, global = true, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// Load the model in this process instead of sharing one with other sessions
    #[arg(long, global = true)]
    pub no_daemon: bool,
    /// Never answer from the model inside this program
    #[arg(long, global = true)]
    pub no_embedded: bool,
    /// Set any key of the configuration, such as completion.max_tokens=32
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// What to log: error, warn, info, debug, trace, or levels for modules
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// Append logs to this file instead of standard error
    #[arg(long, global = true, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// For benches and tests: every answer is this text, from no model at all
    #[arg(long, global = true, hide = true, value_name = "TEXT")]
    pub scripted_answer: Option<String>,
    /// With --scripted-answer: milliseconds before the text
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "MS",
        default_value_t = 0
    )]
    pub scripted_ms: u64,
    /// Language clients say this by habit; standard input and output are what is used anyway
    #[arg(long, global = true, hide = true)]
    pub stdio: bool,
}

/// A mode, by its name in the configuration.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ModeArg {
    /// Local while it is healthy, Claude for heavy and failed requests
    Auto,
    /// Nothing leaves this machine
    LocalOnly,
    /// Claude for everything
    ClaudeOnly,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Auto => Self::Auto,
            ModeArg::LocalOnly => Self::LocalOnly,
            ModeArg::ClaudeOnly => Self::ClaudeOnly,
        }
    }
}

/// `tandem mcp`.
#[derive(Debug, Default, Args)]
pub struct McpArgs {
    /// The settings of the editor that starts it, as the editor would send them over LSP
    #[arg(long, value_name = "JSON")]
    pub editor_settings: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve an editor over LSP on standard input and output
    Lsp,
    /// Serve a host such as Claude Desktop over MCP on standard input and output
    Mcp(McpArgs),
    /// Complete code at a place in a file and print the completion
    Complete(CompleteArgs),
    /// Ask a question; what is piped in is its context
    Ask(AskArgs),
    /// Continue raw tokens or a text, always by the likeliest token: holds any engine to any other
    Generate(GenerateArgs),
    /// Show the backends, their health and where the configuration comes from
    Status(StatusArgs),
    /// Try every backend and tell what works, what does not, and what to do about it
    Doctor(DoctorArgs),
    /// Look at, download, check or remove models
    #[command(subcommand)]
    Model(ModelCommand),
    /// Look at, stop or run the process that holds the models for all sessions
    #[command(subcommand)]
    Daemon(DaemonCommand),
    /// Look at the configuration, or start one
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Put Tandem into an editor or a host
    #[command(subcommand)]
    Install(InstallCommand),
    /// Take that back
    #[command(subcommand)]
    Uninstall(UninstallCommand),
    /// Print or write JSON Schemas: of the configuration and of every MCP tool
    Schema {
        /// One schema by its name; without it, the names
        name: Option<String>,
        /// Write all of them below this folder
        #[arg(long, value_name = "DIR", conflicts_with = "name")]
        write: Option<PathBuf>,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `tandem status`.
#[derive(Debug, Clone, Copy, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Look again each second, until interrupted; with --json one line each time
    #[arg(long)]
    pub watch: bool,
}

/// `tandem complete`.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// Where: line and column count from 1, columns in characters; without a column, the line's end
    #[arg(value_name = "FILE:LINE[:COL]")]
    pub place: String,
    /// Read the document from standard input; FILE is then only its name
    #[arg(long)]
    pub stdin: bool,
    /// Print JSON: the completion, who gave it and why, tokens and milliseconds
    #[arg(long)]
    pub json: bool,
    /// Print the lines around, with the completion in its place
    #[arg(long, conflicts_with = "json")]
    pub show: bool,
}

/// `tandem ask`.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// The question
    #[arg(required = true, value_name = "QUESTION")]
    pub question: Vec<String>,
    /// A file that the question is about; may be given several times
    #[arg(long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How much thought it deserves; `high` asks for the strong model
    #[arg(long, value_enum, default_value_t = EffortArg::Low, value_name = "EFFORT")]
    pub effort: EffortArg,
    /// Answer with JSON that is valid by the JSON Schema in this file
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// The longest answer, in tokens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=128_000))]
    pub max_tokens: Option<u32>,
    /// Print JSON when the answer is complete
    #[arg(long)]
    pub json: bool,
}

/// `tandem generate`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("prompt").required(true))]
pub struct GenerateArgs {
    /// The prompt, as token ids
    #[arg(
        long,
        group = "prompt",
        value_delimiter = ',',
        value_name = "ID,ID,..",
        allow_negative_numbers = true
    )]
    pub tokens: Vec<u32>,
    /// The prompt, as text: special tokens such as <|im_start|> count as such, nothing is added
    #[arg(long, group = "prompt", value_name = "TEXT")]
    pub text: Option<String>,
    /// What computes the model [default: candle; for a bundle coreml, or reference where there is no
    /// Core ML]
    #[arg(long, value_enum, value_name = "RUNTIME")]
    pub runtime: Option<RuntimeArg>,
    /// For --runtime reference: the folder with the model's safetensors [default: `hf` beside it]
    #[arg(long, value_name = "DIR")]
    pub weights: Option<PathBuf>,
    /// The most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub max_tokens: usize,
    /// Print JSON: tokens, text, the token that ended it, the first step's best logits
    #[arg(long)]
    pub json: bool,
    /// With --json: every call of the model's components, with sums of what went in and out
    #[arg(long, requires = "json")]
    pub trace: bool,
}

/// `tandem doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The only runtime to try for a bundle [default: all that there are]
    #[arg(long, value_enum, value_name = "RUNTIME")]
    pub runtime: Option<RuntimeArg>,
    /// For the reference runtime: the folder with the model's safetensors [default: `hf` beside it]
    #[arg(long, value_name = "DIR")]
    pub weights: Option<PathBuf>,
    /// Print JSON, for reports
    #[arg(long)]
    pub json: bool,
    /// Also write what a bug report needs into this new file: the report, the configuration and the
    /// end of the log, without keys
    #[arg(long, value_name = "FILE.zip")]
    pub report: Option<PathBuf>,
}

/// What computes a model, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeArg {
    /// The components of an ANEMLL bundle on the processor, from the same model's safetensors
    Reference,
    /// The components of an ANEMLL bundle on Core ML (macOS)
    Coreml,
    /// The same through the candle-coreml crate (macOS)
    CandleCoreml,
    /// GGUF files and safetensors on the processor
    Candle,
}

impl RuntimeArg {
    /// The runtime of a bundle's components that it names, if it names one.
    pub fn of_components(self) -> Option<RuntimeName> {
        match self {
            Self::Reference => Some(RuntimeName::Reference),
            Self::Coreml => Some(RuntimeName::CoreMl),
            Self::CandleCoreml => Some(RuntimeName::CandleCoreMl),
            Self::Candle => None,
        }
    }
}

/// An effort, by its name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum EffortArg {
    /// Fast, on this machine where possible
    Low,
    /// Long or deep work
    High,
}

impl From<EffortArg> for Effort {
    fn from(effort: EffortArg) -> Self {
        match effort {
            EffortArg::Low => Self::Low,
            EffortArg::High => Self::High,
        }
    }
}

/// `tandem config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show every key, its value and where it comes from
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the configuration
    Schema {
        /// Of a project's file instead
        #[arg(long)]
        project: bool,
    },
    /// Write a configuration of your own to start from, if there is none
    Init {
        /// Print it instead
        #[arg(long)]
        stdout: bool,
    },
    /// Print where the configuration is read from
    Path,
}

/// `tandem install`.
#[derive(Debug, Subcommand)]
pub enum InstallCommand {
    /// The entry `tandem` among the MCP servers of Claude Desktop
    ClaudeDesktop(EditArgs),
    /// The plugin, where Neovim finds it without a plugin manager
    Neovim(PluginArgs),
    /// The extension, and in its settings where this program is, unless that is on PATH
    Vscode(InstallExtensionArgs),
}

/// `tandem uninstall`.
#[derive(Debug, Subcommand)]
pub enum UninstallCommand {
    /// The entry `tandem` among the MCP servers of Claude Desktop
    ClaudeDesktop(EditArgs),
    /// The plugin, as far as `tandem install neovim` put it there
    Neovim(PluginArgs),
    /// The extension, and the setting that tells it where this program is
    Vscode(ExtensionArgs),
}

/// How another program's configuration is edited.
#[derive(Debug, Args)]
pub struct EditArgs {
    /// Edit this file instead of the one that the program keeps
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Print what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Where Neovim's plugin goes.
#[derive(Debug, Args)]
pub struct PluginArgs {
    /// The plugin's own folder [default: site/pack/tandem/start/tandem in Neovim's data folder]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Print what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `tandem install vscode`.
#[derive(Debug, Args)]
pub struct InstallExtensionArgs {
    /// The packaged extension [default: tandem.vsix beside this program]
    #[arg(long, value_name = "FILE")]
    pub vsix: Option<PathBuf>,
    /// Where it goes.
    #[command(flatten)]
    pub extension: ExtensionArgs,
}

/// Which VS Code an extension goes into.
#[derive(Debug, Args)]
pub struct ExtensionArgs {
    /// The command that VS Code, or a program like it, is started with [default: the first there is of
    /// code, code-insiders, codium, cursor, code-server]
    #[arg(long, value_name = "COMMAND")]
    pub program: Option<PathBuf>,
    /// The settings to edit instead of the user's own
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Print what would be run and what would change, and do neither
    #[arg(long)]
    pub dry_run: bool,
}

/// `tandem daemon`.
#[derive(Debug, Subcommand)]
pub enum DaemonCommand {
    /// Run it here, in the foreground; sessions start one by themselves
    Run(DaemonRunArgs),
    /// Show what it holds and for whom; the exit code is 4 where none runs
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Have it answer what it has begun, and end
    Stop,
    /// Print the end of its log
    Logs {
        /// How many lines
        #[arg(short = 'n', long, value_name = "N", default_value_t = 40)]
        lines: usize,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
    },
}

/// `tandem daemon run`. Neither the configuration nor the environment has a say in it.
#[derive(Debug, Args)]
pub struct DaemonRunArgs {
    /// End after so long without a session, such as 10m
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = span)]
    pub idle_exit: Duration,
    /// Threads for the arithmetic [default: one for each physical core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Started by a session: leave its terminal, tell it over standard output, log to a file
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// The longest that a daemon may wait for a session, in milliseconds: thirty days, as in the
/// configuration.
const LONGEST_WAIT: u64 = 30 * 24 * 3600 * 1000;

/// A time as in the configuration.
fn span(text: &str) -> Result<Duration, String> {
    Span::<1, LONGEST_WAIT>::deserialize(StrDeserializer::<ValueError>::new(text))
        .map(Span::get)
        .map_err(|error| error.to_string())
}

/// `tandem model`.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Show the models there are by name, and which of them are on this machine
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Download a model, or what is missing of it
    Pull {
        /// Its name
        #[arg(value_name = "MODEL")]
        id: String,
    },
    /// Read every byte of a model, or of all of them, and compare the hashes
    Verify {
        /// Its name
        #[arg(value_name = "MODEL")]
        id: Option<String>,
    },
    /// Print where a model is
    Path {
        /// Its name
        #[arg(value_name = "MODEL")]
        id: String,
    },
    /// Remove a model from this machine
    Remove {
        /// Its name
        #[arg(value_name = "MODEL")]
        id: String,
    },
}
