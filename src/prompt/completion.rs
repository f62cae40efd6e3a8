//! Completion prompts for models on this machine: a task in the form of the model's profile, within a
//! budget of tokens.
//!
//! A prompt is `opening files first … second … third`, with the text before the cursor and the text
//! after it in the gaps. What stands early changes rarely, so that while someone types the keys and
//! values that were computed for it stay good.

use super::chatml::ChatTemplate;
use super::fim::{FimOrder, FimTokens};
use super::profile::{Frame, Prompting, Room};
use super::{Budget, Vocabulary, fit, healing, outline, too_long};
use crate::inference::{CompleteTask, GenerateError, Snippet};

/// The suffix gets at most this part of the room (3 to 1, as llama.vim's lines and about as
/// Continue's shares).
const SUFFIX_SHARE: usize = 4;
/// Other files get at most this part before the document has what it needs.
const FILES_SHARE: usize = 4;
/// And the lines above the cut at most this one.
const HEAD_SHARE: usize = 5;
/// A frame that takes more than this part of the room is left out.
const FRAME_SHARE: usize = 4;
/// Other files are given room in steps of so many tokens: they stand first, so a change in what fits
/// computes everything anew.
const FILES_STEP: usize = 128;
/// Below this there is no room for a useful prompt.
const LEAST_PROMPT: usize = 16;
/// The name of the repository, where the model expects one. The real one is nothing to learn from, and
/// llama.cpp's server sends a constant, too.
const REPOSITORY: &str = "project";

const SYSTEM: &str = "You write source code. Your answer is the file that is being edited: you go on \
     writing it exactly where it stops, in its own style, and write only what comes next. What stands \
     below is there already: never repeat it, and stop where it begins.";

/// A prompt, and what is to be known of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt<'a> {
    /// The prompt's tokens.
    pub tokens: Vec<u32>,
    /// The text before the cursor that is not in the prompt, with which the answer has to begin: see
    /// [`healing`].
    pub begun: &'a str,
    /// What ends the answer, besides what ends any.
    pub stop: Vec<String>,
}

/// What stands around the parts of a prompt.
struct Skeleton {
    opening: Vec<u32>,
    files: Files,
    first: Vec<u32>,
    second: Vec<u32>,
    third: Vec<u32>,
    order: FimOrder,
    shows_suffix: bool,
    stop: Vec<String>,
}

/// How other files are written down.
enum Files {
    Separated(u32),
    Fenced(String),
    LeftOut,
}

/// The prompt for `task` as `prompting` has it. With `heals` it ends before the piece that is being
/// typed.
///
/// # Errors
/// [`crate::inference::ErrorKind::TooLong`] when there is no room for a prompt at all.
pub fn render<'a>(
    task: &'a CompleteTask,
    vocabulary: &dyn Vocabulary,
    prompting: &Prompting,
    budget: Budget,
    heals: bool,
) -> Result<Prompt<'a>, GenerateError> {
    let begun = if heals {
        healing::unfinished(&task.prefix)
    } else {
        ""
    };
    let before = &task.prefix[..task.prefix.len() - begun.len()];
    // The answer says that piece again, in a token a byte at worst. Always as much, so that the cut
    // stays where it is while a word grows.
    let spared = if heals { healing::LONGEST } else { 0 };
    let room = budget.prompt_tokens().saturating_sub(spared);
    if room < LEAST_PROMPT {
        return Err(too_long(budget));
    }
    let most = prompting.profile.room;
    let share = (room / SUFFIX_SHARE).min(most.after);
    let suffix = fit::beginning_of(&task.suffix, share, vocabulary)?;
    let skeleton = match prompting.frame {
        Frame::Hole(tokens) => Skeleton::hole(tokens, task, room, vocabulary)?,
        Frame::Conversation(template) => {
            let skeleton = Skeleton::conversation(template, task, vocabulary)?;
            // What explains the task must not take the place of the task.
            if skeleton.length() > room / FRAME_SHARE {
                Skeleton::none()
            } else {
                skeleton
            }
        }
        Frame::None => Skeleton::none(),
    };
    let suffix = if skeleton.shows_suffix {
        suffix
    } else {
        Vec::new()
    };
    let room = room - skeleton.length().min(room) - suffix.len();
    let (files, prefix) = skeleton.parts(task, before, most, room, vocabulary)?;
    Ok(Prompt {
        tokens: skeleton.joined(files, prefix, suffix),
        begun,
        stop: skeleton.stop,
    })
}

impl Skeleton {
    fn none() -> Self {
        Self {
            opening: Vec::new(),
            files: Files::LeftOut,
            first: Vec::new(),
            second: Vec::new(),
            third: Vec::new(),
            order: FimOrder::SuffixFirst,
            shows_suffix: false,
            stop: Vec::new(),
        }
    }

    fn hole(
        tokens: FimTokens,
        task: &CompleteTask,
        room: usize,
        vocabulary: &dyn Vocabulary,
    ) -> Result<Self, GenerateError> {
        let mut header = match (tokens.file_separator, &task.path) {
            (Some(separator), Some(path)) => file_header(separator, path, vocabulary)?,
            _ => Vec::new(),
        };
        // A path that takes a quarter of the room is none.
        if header.len() > room / FRAME_SHARE {
            header.clear();
        }
        let mut opening = Vec::new();
        // A repository is what files stand in.
        if let (Some(repository), false) = (tokens.repository, header.is_empty()) {
            opening.push(repository);
            opening.extend(vocabulary.encode(&format!("{REPOSITORY}\n"))?);
        }
        let mut first = header;
        first.push(tokens.prefix);
        let (second, third) = match tokens.order {
            FimOrder::PrefixFirst => (vec![tokens.suffix], vec![tokens.middle]),
            FimOrder::SuffixFirst => {
                first.push(tokens.suffix);
                (vec![tokens.middle], Vec::new())
            }
        };
        Ok(Self {
            opening,
            files: tokens
                .file_separator
                .map_or(Files::LeftOut, Files::Separated),
            first,
            second,
            third,
            order: tokens.order,
            shows_suffix: true,
            stop: Vec::new(),
        })
    }

    fn conversation(
        template: ChatTemplate,
        task: &CompleteTask,
        vocabulary: &dyn Vocabulary,
    ) -> Result<Self, GenerateError> {
        let fence = fence_unlike(task);
        let mut opening = Vec::new();
        template.turn("system", SYSTEM, vocabulary, &mut opening)?;
        template.question(vocabulary, &mut opening)?;
        let file = match &task.path {
            Some(path) => format!("the file {path}"),
            None => "a file".to_owned(),
        };
        let language = if task.language.is_empty() {
            String::new()
        } else {
            format!(" ({})", task.language)
        };
        let shows_suffix = !task.suffix.trim().is_empty();
        let (first, asked) = if shows_suffix {
            let shown = format!("At the end of {file}{language} stands this:\n{fence}\n");
            (shown, format!("\n{fence}\nWrite what stands before it."))
        } else {
            (format!("Write {file}{language}."), String::new())
        };
        let mut second = vocabulary.encode(&asked)?;
        template.end(vocabulary, &mut second)?;
        template.answer(vocabulary, &mut second)?;
        second.extend(vocabulary.encode(&format!("{fence}{}\n", task.language))?);
        // An answer that is over closes its fence, on a line of its own.
        let mut stop = vec![format!("\n{fence}")];
        let line = task.prefix.rsplit('\n').next().unwrap_or_default();
        if line.trim().is_empty() {
            stop.push(fence.clone());
        }
        Ok(Self {
            opening,
            files: Files::Fenced(fence),
            first: vocabulary.encode(&first)?,
            second,
            third: Vec::new(),
            order: FimOrder::SuffixFirst,
            shows_suffix,
            stop,
        })
    }

    fn length(&self) -> usize {
        self.opening.len() + self.first.len() + self.second.len() + self.third.len()
    }

    /// Other files, and the text before the cursor, in `room`.
    fn parts(
        &self,
        task: &CompleteTask,
        before: &str,
        most: Room,
        room: usize,
        vocabulary: &dyn Vocabulary,
    ) -> Result<(Vec<u32>, Vec<u32>), GenerateError> {
        let reserved = most.files.min(room / FILES_SHARE);
        let mut files = self.others(&task.snippets, reserved, vocabulary)?;
        // In steps, so that the document is not cut elsewhere for each change in them.
        let taken = files.len().next_multiple_of(FILES_STEP).min(reserved);
        let taken = if files.is_empty() { 0 } else { taken };
        let room = room - taken;
        let whole = fit::end_of(before, room, vocabulary)?;
        if whole.start == Some(0) {
            let left = taken + room - whole.tokens.len();
            let left = left - left % FILES_STEP;
            if left > reserved {
                files = self.others(&task.snippets, left, vocabulary)?;
            }
            return Ok((files, whole.tokens));
        }
        let head = most.head.min(room / HEAD_SHARE);
        if head == 0 {
            return Ok((files, whole.tokens));
        }
        let end = fit::end_of(before, room - head, vocabulary)?;
        let above = match end.start {
            Some(start) => outline::above(before, start, &task.language),
            None => outline::Outline::default(),
        };
        let mut prefix = above.tokens(head, vocabulary)?;
        prefix.extend(end.tokens);
        Ok((files, prefix))
    }

    /// As many whole snippets as fit, the best nearest to the document.
    fn others(
        &self,
        snippets: &[Snippet],
        mut room: usize,
        vocabulary: &dyn Vocabulary,
    ) -> Result<Vec<u32>, GenerateError> {
        let mut chosen = Vec::new();
        for snippet in snippets {
            let text = snippet.text.trim_end_matches('\n');
            let (mut tokens, text) = match &self.files {
                Files::LeftOut => break,
                Files::Separated(separator) => {
                    let header = file_header(*separator, &snippet.path, vocabulary)?;
                    (header, format!("{text}\n"))
                }
                Files::Fenced(fence) => {
                    let header = format!("From {}:\n{fence}\n", snippet.path);
                    (vocabulary.encode(&header)?, format!("{text}\n{fence}\n\n"))
                }
            };
            tokens.extend(fit::beginning_of(&text, room + 1, vocabulary)?);
            if tokens.len() <= room {
                room -= tokens.len();
                chosen.push(tokens);
            }
        }
        chosen.reverse();
        Ok(chosen.concat())
    }

    fn joined(&self, files: Vec<u32>, prefix: Vec<u32>, suffix: Vec<u32>) -> Vec<u32> {
        let (one, other) = match self.order {
            FimOrder::PrefixFirst => (prefix, suffix),
            FimOrder::SuffixFirst => (suffix, prefix),
        };
        let mut prompt = self.opening.clone();
        prompt.extend(files);
        prompt.extend(&self.first);
        prompt.extend(one);
        prompt.extend(&self.second);
        prompt.extend(other);
        prompt.extend(&self.third);
        prompt
    }
}

fn file_header(
    separator: u32,
    path: &str,
    vocabulary: &dyn Vocabulary,
) -> Result<Vec<u32>, GenerateError> {
    let mut tokens = vec![separator];
    tokens.extend(vocabulary.encode(&format!("{path}\n"))?);
    Ok(tokens)
}

/// A Markdown fence that no text of `task` holds.
fn fence_unlike(task: &CompleteTask) -> String {
    let mut fence = "```".to_owned();
    let texts = || {
        let snippets = task.snippets.iter().map(|snippet| &*snippet.text);
        snippets.chain([&*task.prefix, &*task.suffix])
    };
    // Ends: texts are finite.
    while texts().any(|text| text.contains(&fence)) {
        fence.push('`');
    }
    fence
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inference::{CompletionShape, ErrorKind};
    use crate::prompt::bytes::{Bytes, text_of};
    use crate::prompt::profile::{Declared, PROFILES};

    const BUDGET: Budget = Budget {
        context_tokens: 2000,
        max_tokens: 64,
    };

    fn task(prefix: &str, suffix: &str, snippets: &[(&str, &str)]) -> CompleteTask {
        CompleteTask {
            path: Some("src/a.rs".into()),
            language: "rust".into(),
            prefix: prefix.into(),
            suffix: suffix.into(),
            snippets: snippets
                .iter()
                .map(|(path, text)| Snippet {
                    path: (*path).into(),
                    file: None,
                    text: (*text).into(),
                })
                .collect(),
            shape: CompletionShape::Auto,
        }
    }

    /// Every profile of a model on this machine.
    fn all() -> impl Iterator<Item = Prompting> {
        let template = ChatTemplate::find("<|im_start|>", &Bytes);
        let named = move |profile: &crate::prompt::profile::Profile| {
            let declared = Declared {
                profile: Some(profile.name),
                ..Declared::default()
            };
            Prompting::of(&declared, &Bytes, template)
        };
        PROFILES[..PROFILES.len() - 1].iter().map(named)
    }

    fn text(task: &CompleteTask, prompting: &Prompting, budget: Budget) -> String {
        let prompt = render(task, &Bytes, prompting, budget, false).unwrap();
        assert!(prompt.tokens.len() <= budget.prompt_tokens());
        text_of(&prompt.tokens)
    }

    #[test]
    fn a_long_document_keeps_what_is_near_the_cursor() {
        let line = "let number = 1;\n";
        let long = task(&line.repeat(999), &line.repeat(999), &[("b.rs", "text")]);
        for prompting in all() {
            let prompt = text(&long, &prompting, BUDGET);
            assert!(
                prompt.contains(&line.repeat(40)),
                "{}",
                prompting.profile.name
            );
            let files = prompting.profile.room.files > 0;
            assert_eq!(prompt.contains("b.rs"), files, "{}", prompting.profile.name);
        }
    }

    #[test]
    fn what_the_document_leaves_is_for_other_files() {
        let lines = "x\n".repeat(300);
        let short = task("fn a() {}\n", "", &[("b.rs", &lines)]);
        for prompting in all() {
            let prompt = text(&short, &prompting, BUDGET);
            let shows = prompting.profile.name != "continuation";
            assert_eq!(prompt.contains(&lines), shows, "{}", prompting.profile.name);
        }
    }

    #[test]
    fn a_piece_being_typed_is_left_to_the_answer() {
        let typed = task("fn a() { retu", "}\n", &[]);
        for prompting in all() {
            let prompt = render(&typed, &Bytes, &prompting, BUDGET, true).unwrap();
            assert_eq!(prompt.begun, " retu");
            let prompt = text_of(&prompt.tokens);
            assert!(prompt.contains("fn a() {") && !prompt.contains("retu"));
        }
    }

    #[test]
    fn no_room_at_all_is_told_and_little_room_is_for_the_document() {
        let short = task("let x = 1;\n", "", &[]);
        for prompting in all() {
            let mut budget = Budget {
                context_tokens: 20,
                max_tokens: 64,
            };
            let error = render(&short, &Bytes, &prompting, budget, true).unwrap_err();
            assert_eq!(error.kind, ErrorKind::TooLong);
            budget.context_tokens = 100;
            assert!(text(&short, &prompting, budget).contains("let x = 1;"));
        }
    }

    #[test]
    fn a_fence_is_longer_than_any_in_the_document() {
        let prompting = all().find(|one| one.profile.name == "qwen3").unwrap();
        let fenced = task("/// ```\n/// x\n", "/// ````\n", &[]);
        let prompt = render(&fenced, &Bytes, &prompting, BUDGET, false).unwrap();
        assert_eq!(prompt.stop, ["\n`````", "`````"]);
        assert!(text_of(&prompt.tokens).contains("`````rust\n/// ```\n/// x\n"));
    }

    proptest! {
        /// Whatever the document: the prompt fits, and ends or is framed as the order says.
        #[test]
        fn a_prompt_fits_and_holds_the_end_of_the_prefix(
            prefix in "([ a-c{}\né`]{0,12}\n){0,40}[ab ]{0,9}",
            suffix in "([ a-c`]{0,12}\n){0,40}",
            other in "([ a-c]{0,12}\n){0,40}",
            context in 100usize..900,
        ) {
            let task = task(&prefix, &suffix, &[("b.rs", &other)]);
            let budget = Budget { context_tokens: context, max_tokens: 32 };
            for prompting in all() {
                let prompt = render(&task, &Bytes, &prompting, budget, false).unwrap();
                prop_assert!(prompt.tokens.len() <= budget.prompt_tokens());
                let shown = text_of(&prompt.tokens);
                let near = &prefix[prefix.ceil_char_boundary(prefix.len().saturating_sub(12))..];
                let line = near.rsplit('\n').next().unwrap();
                prop_assert!(shown.contains(line));
            }
        }
    }
}
