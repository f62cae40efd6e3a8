//! How each model is asked for a completion: one table, [`PROFILES`], and which row is whose.
//!
//! What a row renders is in `tests/data/prompts`, a file for each. Which row is chosen depends on
//! what a model's own files declare ([`Declared`]), never on how it answers. No published weights
//! were at hand when this was written, so the rows of published models follow their authors' own
//! descriptions and were not compared by measuring; `benches/completions` can measure any of them.

use super::Vocabulary;
use super::chatml::ChatTemplate;
use super::fim::{FimOrder, FimTokens};

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name, as `tandem doctor` and the log show it.
    pub name: &'static str,
    /// What is told of it there.
    pub about: &'static str,
    /// How the cursor's surroundings are written down.
    pub form: Form,
    /// What gets how much of the context.
    pub room: Room,
    /// Whether the answer is mixed with what the document itself says comes next: for a model too
    /// small to tell better.
    pub copies: bool,
}

/// How a document with a cursor in it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Between special tokens that the model learnt for it. With `repository`, files stand below a
    /// repository's name if the model has a token for that.
    Hole {
        /// What stands first.
        order: FimOrder,
        /// Whether the prompt opens with the name of a repository.
        repository: bool,
    },
    /// As a conversation in ChatML in which the answer has begun already: with the text before the
    /// cursor. Other files and the text after the cursor stand in the question.
    BegunAnswer,
    /// The text before the cursor alone.
    Continuation,
    /// As a question to a model that answers between tags: [`super::chat`].
    Question,
}

/// The most of each part of a prompt, in tokens; in bytes for [`Form::Question`], whose model counts
/// its tokens elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The document before the cursor. As much as the context leaves, for models on this machine.
    pub before: usize,
    /// The document after the cursor, of which every keystroke of a prefix-first prompt pays for all.
    /// What a completion must fit to stands in the first lines (llama.vim takes 64 lines after the
    /// cursor and 256 before).
    pub after: usize,
    /// Pieces of other files.
    pub files: usize,
    /// Of a document that does not fit: its imports, and the signatures that the cut falls into.
    pub head: usize,
}

const WHAT_IS_LEFT: usize = usize::MAX;

/// All profiles.
pub const PROFILES: [Profile; 8] = [
    Profile {
        name: "tandem-mini",
        about: "fill in the middle, suffix first, and what the document itself says comes next",
        form: Form::Hole {
            order: FimOrder::SuffixFirst,
            repository: false,
        },
        room: Room {
            before: WHAT_IS_LEFT,
            after: 128,
            files: 0,
            head: 0,
        },
        copies: true,
    },
    // Qwen2.5-Coder Technical Report (arXiv 2409.12186), section 3.1 and its README: files of a
    // repository behind `<|repo_name|>` and `<|file_sep|>`, then the hole, prefix first.
    Profile {
        name: "qwen2.5-coder",
        about: "fill in the middle, prefix first, below a repository and its files",
        form: Form::Hole {
            order: FimOrder::PrefixFirst,
            repository: true,
        },
        room: CODER,
        copies: false,
    },
    // Its README: "the same format as Qwen2.5-Coder".
    Profile {
        name: "qwen3-coder",
        about: "fill in the middle, prefix first, below a repository and its files",
        form: Form::Hole {
            order: FimOrder::PrefixFirst,
            repository: true,
        },
        room: CODER,
        copies: false,
    },
    // Some other model that says of itself that it fills holes.
    Profile {
        name: "fill-in-the-middle",
        about: "fill in the middle, prefix first",
        form: Form::Hole {
            order: FimOrder::PrefixFirst,
            repository: false,
        },
        room: CODER,
        copies: false,
    },
    // The general models have the tokens for holes in their vocabulary and were never trained to use
    // them (ggml-org/llama.vscode#55). They were trained on code as text and, last, on ChatML. An
    // answer that has begun is both: the code goes on where it stands, and what follows the cursor is
    // known. As the prefix stands last, a keystroke costs its own tokens only, and an answer needs no
    // tags that a small model forgets. Thoughts are closed before they begin.
    Profile {
        name: "qwen3",
        about: "a conversation whose answer has begun with the text before the cursor, no thoughts",
        form: Form::BegunAnswer,
        room: CHAT,
        copies: false,
    },
    Profile {
        name: "qwen2.5",
        about: "a conversation whose answer has begun with the text before the cursor",
        form: Form::BegunAnswer,
        room: CHAT,
        copies: false,
    },
    // Base models, and whatever declares nothing: any language model can continue a text.
    Profile {
        name: "continuation",
        about: "the text before the cursor alone",
        form: Form::Continuation,
        room: Room {
            before: WHAT_IS_LEFT,
            after: 0,
            files: 0,
            head: 256,
        },
        copies: false,
    },
    CLAUDE,
];

const CODER: Room = Room {
    before: WHAT_IS_LEFT,
    after: 128,
    files: 768,
    head: 256,
};

const CHAT: Room = Room {
    before: WHAT_IS_LEFT,
    after: 192,
    files: 512,
    head: 192,
};

/// Claude: it has no tokens for holes and takes no answer that has begun
/// (<https://platform.claude.com/docs/en/api/errors#prefill-not-supported>). Some 10,000 tokens, beyond
/// which an answer comes later without becoming better; chosen by judgement, not measured.
pub const CLAUDE: Profile = Profile {
    name: "claude",
    about: "a question that shows the document with its cursor, and asks for an answer between tags",
    form: Form::Question,
    room: Room {
        before: 24_000,
        after: 8_000,
        files: 16_000,
        // The document before the cursor never comes longer than what is shown of it.
        head: 0,
    },
    copies: false,
};

/// What a model's files say of it, as far as it bears on prompts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Declared<'a> {
    /// A profile's name, if the file names one (`tandem.prompt`).
    pub profile: Option<&'a str>,
    /// The order of holes, if the file says that the model learnt to fill them (`tandem.fim_order`).
    pub fim_order: Option<FimOrder>,
    /// The architecture: `qwen2`, `qwen3`.
    pub architecture: &'a str,
    /// Whatever it is called: by its file, and its file's name.
    pub names: &'a [String],
}

/// A profile with the tokens of a vocabulary.
#[derive(Debug, Clone, Copy)]
pub struct Prompting {
    /// The profile.
    pub profile: &'static Profile,
    pub(super) frame: Frame,
}

/// The special tokens that a form needs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Frame {
    Hole(FimTokens),
    Conversation(ChatTemplate),
    None,
}

impl Profile {
    /// The profile of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }
}

impl Prompting {
    /// The profile of the model that is `declared` so, has this vocabulary and holds conversations by
    /// this template: the first of these whose tokens the vocabulary has.
    ///
    /// 1. the profile that the file names;
    /// 2. by the order of holes that the file names;
    /// 3. for what is called a coder, that of its generation;
    /// 4. for what is called base, the continuation;
    /// 5. for what holds conversations, that of its generation;
    /// 6. the continuation.
    #[must_use]
    pub fn of(
        declared: &Declared<'_>,
        vocabulary: &dyn Vocabulary,
        template: Option<ChatTemplate>,
    ) -> Self {
        let named = |word: &str| {
            let is = |name: &String| name.to_lowercase().contains(word);
            declared.names.iter().any(is)
        };
        let coder = match declared.architecture {
            "qwen3" => "qwen3-coder",
            _ => "qwen2.5-coder",
        };
        let general = match declared.architecture {
            "qwen3" => "qwen3",
            _ => "qwen2.5",
        };
        let ordered = declared.fim_order.map(|order| match order {
            FimOrder::SuffixFirst => "tandem-mini",
            FimOrder::PrefixFirst => "fill-in-the-middle",
        });
        let candidates = [
            declared.profile,
            ordered,
            named("coder").then_some(coder),
            named("base").then_some("continuation"),
            Some(general),
        ];
        let mut found = candidates.into_iter().flatten().filter_map(|name| {
            let profile = Profile::named(name)?;
            let frame = Frame::of(profile.form, vocabulary, template)?;
            Some(Self { profile, frame })
        });
        found.next().unwrap_or_else(Self::continuation)
    }

    /// The text before the cursor alone, for a model of which nothing else is known.
    #[must_use]
    pub fn continuation() -> Self {
        let is = |profile: &&Profile| profile.form == Form::Continuation;
        Self {
            profile: PROFILES.iter().find(is).unwrap_or(&PROFILES[0]),
            frame: Frame::None,
        }
    }
}

impl Frame {
    /// `None` where the vocabulary lacks what `form` needs.
    fn of(form: Form, vocabulary: &dyn Vocabulary, template: Option<ChatTemplate>) -> Option<Self> {
        match form {
            Form::Hole { order, repository } => {
                let tokens = FimTokens::find(vocabulary, order, repository)?;
                Some(Self::Hole(tokens))
            }
            Form::BegunAnswer => template.map(Self::Conversation),
            Form::Continuation => Some(Self::None),
            Form::Question => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::bytes::Bytes;

    fn chosen(declared: Declared<'_>, template: Option<&str>) -> &'static str {
        let template = template.and_then(|template| ChatTemplate::find(template, &Bytes));
        Prompting::of(&declared, &Bytes, template).profile.name
    }

    const CHATML: Option<&str> = Some("<|im_start|>");

    #[test]
    fn a_model_gets_the_profile_of_what_it_is() {
        for (architecture, name, template, expected) in [
            (
                "qwen2",
                "Qwen2.5 Coder 1.5B Instruct",
                CHATML,
                "qwen2.5-coder",
            ),
            (
                "qwen2",
                "qwen2.5-coder-0.5b-base-q8_0",
                None,
                "qwen2.5-coder",
            ),
            ("qwen3", "Qwen3-Coder-Next", CHATML, "qwen3-coder"),
            ("qwen3", "anemll-Qwen-Qwen3-0.6B-ctx512", CHATML, "qwen3"),
            ("qwen3", "Qwen3 0.6B Base", CHATML, "continuation"),
            ("qwen2", "Qwen2.5 0.5B Instruct", CHATML, "qwen2.5"),
            ("qwen2", "Qwen2.5 0.5B", None, "continuation"),
            ("", "", Some("[INST]"), "continuation"),
        ] {
            let declared = Declared {
                architecture,
                names: &[name.to_owned()],
                ..Declared::default()
            };
            assert_eq!(chosen(declared, template), expected, "{name}");
        }
    }

    #[test]
    fn what_a_file_says_of_itself_counts_more_than_its_name() {
        let names = ["Some Coder".to_owned()];
        let model = Declared {
            names: &names,
            architecture: "qwen3",
            ..Declared::default()
        };
        for (declared, expected) in [
            (Some("qwen3"), "qwen3"),
            (Some("continuation"), "continuation"),
            // What is not known, or is not for models on this machine, does not count.
            (Some("qwen9"), "qwen3-coder"),
            (Some("claude"), "qwen3-coder"),
            (None, "qwen3-coder"),
        ] {
            let declared = Declared {
                profile: declared,
                ..model
            };
            assert_eq!(chosen(declared, CHATML), expected);
        }
        for (order, expected) in [
            (FimOrder::SuffixFirst, "tandem-mini"),
            (FimOrder::PrefixFirst, "fill-in-the-middle"),
        ] {
            let declared = Declared {
                fim_order: Some(order),
                ..model
            };
            assert_eq!(chosen(declared, CHATML), expected);
        }
    }

    #[test]
    fn tokens_that_the_vocabulary_lacks_are_not_used() {
        struct Letters;
        impl Vocabulary for Letters {
            fn encode(&self, text: &str) -> Result<Vec<u32>, crate::inference::GenerateError> {
                Bytes.encode(text)
            }
            fn special(&self, _: &str) -> Option<u32> {
                None
            }
        }
        let names = ["coder".to_owned()];
        let declared = Declared {
            fim_order: Some(FimOrder::SuffixFirst),
            names: &names,
            ..Declared::default()
        };
        let prompting = Prompting::of(&declared, &Letters, None);
        assert_eq!(prompting.profile.name, "continuation");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PROFILES.len());
    }
}
