//! Brackets and quotes around a cursor, read without a parser: enough to tell what is open, for
//! the common comment and string syntaxes.

/// How a language writes comments and strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    line_comment: &'static str,
    block_comment: bool,
    /// The quotes that start a string. Without `'` among them, that one starts a character which
    /// ends soon, or none at all (Rust has lifetimes).
    quotes: &'static str,
    triple_quotes: bool,
}

/// Where in the text a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    Code,
    LineComment,
    BlockComment,
    /// A string that ends with this quote.
    Text(char),
    /// A string that ends with three of this quote.
    Triple(char),
}

/// What is open at a cursor.
#[derive(Debug)]
pub(super) struct Brackets {
    syntax: Option<Syntax>,
    pub(super) within: Within,
    /// Brackets that the text before opens and does not close, innermost first.
    open: Vec<char>,
    /// How many of those, from the innermost, the text after leaves open.
    closable: usize,
    /// Whether the text after closes more than the text before opens.
    excess: bool,
}

impl Syntax {
    /// By the LSP identifier of the language; `None` for prose and markup, in which brackets and
    /// quotes mean nothing certain.
    fn of(language: &str) -> Option<Self> {
        let c = Self {
            line_comment: "//",
            block_comment: true,
            quotes: "\"'",
            triple_quotes: false,
        };
        Some(match language {
            "plaintext" | "markdown" | "mdx" | "restructuredtext" | "latex" | "tex" | "html"
            | "xml" | "svg" | "vue" | "svelte" | "astro" | "git-commit" | "git-rebase" | "log"
            | "diff" | "csv" => return None,
            "rust" | "ocaml" | "fsharp" => Self { quotes: "\"", ..c },
            "javascript" | "javascriptreact" | "typescript" | "typescriptreact" | "go" => Self {
                quotes: "\"'`",
                ..c
            },
            "python" => Self {
                line_comment: "#",
                block_comment: false,
                triple_quotes: true,
                ..c
            },
            "ruby" | "shellscript" | "yaml" | "toml" | "perl" | "r" | "makefile" | "dockerfile"
            | "elixir" | "julia" | "coffeescript" | "powershell" | "nix" | "cmake" | "gdscript" => {
                Self {
                    line_comment: "#",
                    block_comment: false,
                    ..c
                }
            }
            "lua" | "sql" | "haskell" | "elm" => Self {
                line_comment: "--",
                block_comment: false,
                quotes: if language == "haskell" { "\"" } else { "\"'" },
                ..c
            },
            "clojure" | "lisp" | "scheme" | "racket" => Self {
                line_comment: ";",
                block_comment: false,
                quotes: "\"",
                ..c
            },
            _ => c,
        })
    }

    /// Reads `text` from `within` on, hands each bracket in code to `bracket` with its place until
    /// that says stop, and tells where the text ends. Unless `ended`, more may follow, and what only
    /// that can tell is not read.
    fn read(
        self,
        text: &str,
        ended: bool,
        mut within: Within,
        mut bracket: impl FnMut(usize, char) -> bool,
    ) -> Within {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let at = text.len() - rest.len();
            let mut length = first.len_utf8();
            within = match within {
                Within::Code => {
                    if rest.starts_with(self.line_comment) {
                        Within::LineComment
                    } else if self.block_comment && rest.starts_with("/*") {
                        length = 2;
                        Within::BlockComment
                    } else {
                        match first {
                            '"' | '\'' if self.triple_quotes && is_triple(rest, first) => {
                                length = 3;
                                Within::Triple(first)
                            }
                            quote if self.quotes.contains(quote) => Within::Text(quote),
                            '\'' => {
                                match after_quote(rest) {
                                    Quoted::Character(whole) => length = whole,
                                    Quoted::Nothing => {}
                                    Quoted::Undecided if ended => {}
                                    Quoted::Undecided => return Within::Code,
                                }
                                Within::Code
                            }
                            '(' | ')' | '[' | ']' | '{' | '}' => {
                                if !bracket(at, first) {
                                    return Within::Code;
                                }
                                Within::Code
                            }
                            _ => Within::Code,
                        }
                    }
                }
                Within::LineComment if first == '\n' => Within::Code,
                Within::BlockComment if rest.starts_with("*/") => {
                    length = 2;
                    Within::Code
                }
                Within::Text(_) | Within::Triple(_) if first == '\\' => {
                    length += rest[length..].chars().next().map_or(0, char::len_utf8);
                    within
                }
                Within::Text(quote) if first == quote => Within::Code,
                // A string that its line does not end was none.
                Within::Text(quote) if first == '\n' && quote != '`' => Within::Code,
                Within::Triple(quote) if is_triple(rest, quote) => {
                    length = 3;
                    Within::Code
                }
                Within::LineComment
                | Within::BlockComment
                | Within::Text(_)
                | Within::Triple(_) => within,
            };
            rest = &rest[length..];
        }
        within
    }
}

impl Brackets {
    /// What is open between `prefix` and `suffix` in `language`.
    pub(super) fn around(language: &str, prefix: &str, suffix: &str) -> Self {
        let syntax = Syntax::of(language);
        let Some(known) = syntax else {
            return Self {
                syntax,
                within: Within::Code,
                open: Vec::new(),
                closable: 0,
                excess: false,
            };
        };
        let mut open = Vec::new();
        let within = known.read(prefix, true, Within::Code, |_, bracket| {
            if let Some(opener) = opener_of(bracket) {
                // What does not match was opened before the text begins, or is not understood.
                if let Some(at) = open.iter().rposition(|one| *one == opener) {
                    open.truncate(at);
                }
            } else {
                open.push(bracket);
            }
            true
        });
        open.reverse();
        let mut inner = 0_usize;
        let mut closed = Vec::new();
        known.read(suffix, true, within, |_, bracket| {
            match opener_of(bracket) {
                None => inner += 1,
                Some(_) if inner > 0 => inner -= 1,
                Some(opener) => closed.push(opener),
            }
            closed.len() <= open.len()
        });
        Self {
            syntax,
            within,
            closable: closable(&open, &closed),
            excess: closed.len() > open.len(),
            open,
        }
    }

    /// Where `text`, inserted at the cursor, first closes something that is not open or that the
    /// text after closes itself. `ended` says that nothing follows `text`.
    pub(super) fn first_excess(&self, text: &str, ended: bool) -> Option<usize> {
        let syntax = self.syntax.filter(|_| self.within == Within::Code)?;
        let mut own = Vec::new();
        let mut closed = 0;
        let mut excess = None;
        syntax.read(text, ended, Within::Code, |at, bracket| {
            let Some(opener) = opener_of(bracket) else {
                own.push(bracket);
                return true;
            };
            let fits = if let Some(last) = own.pop() {
                last == opener
            } else {
                closed += 1;
                closed <= self.closable && self.open.get(closed - 1) == Some(&opener)
            };
            if !fits {
                excess = Some(at);
            }
            fits
        });
        excess
    }

    /// The end of the last line of `text` at which nothing is open that it opened, where at its own end
    /// something is. `None` where that cannot be told, or where the text after the cursor closes it.
    pub(super) fn last_closed(&self, text: &str) -> Option<usize> {
        let syntax = self.syntax.filter(|_| self.judges() && !self.excess)?;
        let is_closed = |text: &str| {
            let mut open = 0_usize;
            let within = syntax.read(text, true, Within::Code, |_, bracket| {
                match opener_of(bracket) {
                    None => open += 1,
                    Some(_) => open = open.saturating_sub(1),
                }
                true
            });
            open == 0 && matches!(within, Within::Code | Within::LineComment)
        };
        if is_closed(text) {
            return None;
        }
        let ends = text.match_indices('\n').map(|(at, _)| at);
        ends.rev().find(|end| is_closed(&text[..*end]))
    }

    /// Where `text` first ends the string that the cursor is in.
    pub(super) fn end_of_string(&self, text: &str) -> Option<usize> {
        let Within::Text(quote) = self.within else {
            return None;
        };
        let mut escaped = false;
        text.char_indices().find_map(|(at, character)| {
            let ends = character == quote && !escaped;
            escaped = character == '\\' && !escaped;
            ends.then_some(at)
        })
    }

    /// Whether the text after the cursor closes anything that the text before opens.
    pub(super) fn suffix_closes(&self) -> bool {
        self.closable < self.open.len()
    }

    /// Whether brackets can be judged at the cursor.
    pub(super) fn judges(&self) -> bool {
        self.syntax.is_some() && self.within == Within::Code
    }
}

/// How many of `open` (innermost first) are left open by a text that closes `closed` (in its
/// order). Where both are whole the lengths tell; where one was cut at its far end the kinds do.
fn closable(open: &[char], closed: &[char]) -> usize {
    let agrees = |left: usize| {
        open[left..]
            .iter()
            .zip(closed)
            .all(|(open, closed)| open == closed)
    };
    let by_length = open.len().saturating_sub(closed.len());
    if agrees(by_length) {
        return by_length;
    }
    (0..=open.len()).find(|left| agrees(*left)).unwrap_or(0)
}

fn opener_of(bracket: char) -> Option<char> {
    match bracket {
        ')' => Some('('),
        ']' => Some('['),
        '}' => Some('{'),
        _ => None,
    }
}

fn is_triple(text: &str, quote: char) -> bool {
    let mut characters = text.chars();
    (0..3).all(|_| characters.next() == Some(quote))
}

/// What a single quote begins, in a language in which it begins no string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoted {
    /// A character literal of so many bytes, quotes included.
    Character(usize),
    /// A lifetime, or nothing that is understood.
    Nothing,
    /// What follows will tell.
    Undecided,
}

/// What the single quote at the start of `text` begins. A character literal stays on its line.
fn after_quote(text: &str) -> Quoted {
    let line = text.split_once('\n').map_or(text, |(line, _)| line);
    let mut characters = line.char_indices().skip(1);
    // How far the closing quote may be from the first character, or from the escaped one: the
    // longest literal is `'\u{10FFFF}'`.
    let most = match characters.next() {
        Some((_, '\\')) => characters.next().map_or(0, |_| 10),
        Some(_) => 1,
        None => 0,
    };
    let mut read = 0;
    for (at, character) in characters.take(most) {
        if character == '\'' {
            return Quoted::Character(at + 1);
        }
        read += 1;
    }
    if line.len() < text.len() || (most > 0 && read == most) {
        Quoted::Nothing
    } else {
        Quoted::Undecided
    }
}
