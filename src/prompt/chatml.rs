//! Conversations and edits in Qwen's ChatML, thinking switched off.
//!
//! After the chat templates of Qwen2.5 and Qwen3: every turn is
//! `<|im_start|>role\ntext<|im_end|>\n`. For a model that can think, the answer starts behind an
//! empty `<think>` block, as its template has it for `enable_thinking=false`.

use std::fmt::Write as _;

use super::{Budget, Vocabulary, fit, too_long};
use crate::inference::{ChatTask, EditTask, GenerateError, Role};

/// An answer must have room for at least this part of the context, or for all it may have.
const ANSWER_SHARE: usize = 4;

/// Of the room that is left around a selection, the text before it gets this many parts in four.
const BEFORE_PARTS: usize = 3;

const EDIT_SYSTEM: &str = "You edit code. You are given a part of a file and an instruction. Answer \
     with the new version of the part between <selection> and </selection> only: no explanation, \
     no code fence.";

/// How a model holds a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatTemplate {
    start: u32,
    end: u32,
    /// The tokens around an empty thought, for models that would think otherwise.
    think: Option<(u32, u32)>,
}

impl ChatTemplate {
    /// From the template that comes with the model; `None` where that is no ChatML.
    #[must_use]
    pub fn find(template: &str, vocabulary: &dyn Vocabulary) -> Option<Self> {
        let think = template.contains("enable_thinking").then(|| {
            let open = vocabulary.special("<think>")?;
            Some((open, vocabulary.special("</think>")?))
        });
        template.contains("<|im_start|>").then_some(())?;
        Some(Self {
            start: vocabulary.special("<|im_start|>")?,
            end: vocabulary.special("<|im_end|>")?,
            think: think.flatten(),
        })
    }

    /// The prompt for the next answer in a conversation.
    ///
    /// # Errors
    /// [`crate::inference::ErrorKind::TooLong`] when it does not fit: turns are never left out.
    pub fn chat(
        self,
        task: &ChatTask,
        vocabulary: &dyn Vocabulary,
        budget: Budget,
    ) -> Result<Vec<u32>, GenerateError> {
        let mut prompt = Vec::new();
        if let Some(system) = &task.system {
            self.turn("system", system, vocabulary, &mut prompt)?;
        }
        for message in &task.messages {
            let role = match message.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            self.turn(role, &message.text, vocabulary, &mut prompt)?;
        }
        self.answer(vocabulary, &mut prompt)?;
        check_fits(&prompt, budget)?;
        Ok(prompt)
    }

    /// The prompt for an edit. The text around the selection is cut to what fits.
    ///
    /// # Errors
    /// [`crate::inference::ErrorKind::TooLong`] when selection and instruction alone do not fit.
    pub fn edit(
        self,
        task: &EditTask,
        vocabulary: &dyn Vocabulary,
        budget: Budget,
    ) -> Result<Vec<u32>, GenerateError> {
        let mut opening = String::new();
        if let Some(path) = &task.path {
            let _ = writeln!(opening, "File: {path}");
        }
        if !task.language.is_empty() {
            let _ = writeln!(opening, "Language: {}", task.language);
        }
        let selection = format!("<selection>{}</selection>", task.selection);
        let closing = format!("\n\nInstruction: {}", task.instruction);

        let mut prompt = Vec::new();
        self.turn("system", EDIT_SYSTEM, vocabulary, &mut prompt)?;
        prompt.push(self.start);
        prompt.extend(vocabulary.encode(&format!("user\n{opening}\n"))?);
        let selection = vocabulary.encode(&selection)?;
        let mut after = vocabulary.encode(&closing)?;
        after.push(self.end);
        after.extend(vocabulary.encode("\n")?);
        self.answer(vocabulary, &mut after)?;

        let fixed = prompt.len() + selection.len() + after.len();
        let room = budget.prompt_tokens().saturating_sub(fixed);
        let before = room / (BEFORE_PARTS + 1) * BEFORE_PARTS;
        let before = fit::end_of(&task.before, before, vocabulary)?.tokens;
        let behind = fit::beginning_of(&task.after, room - before.len(), vocabulary)?;
        prompt.extend(before);
        prompt.extend(selection);
        prompt.extend(behind);
        prompt.extend(after);
        check_fits(&prompt, budget)?;
        Ok(prompt)
    }

    /// A turn that is complete.
    pub(super) fn turn(
        self,
        role: &str,
        text: &str,
        vocabulary: &dyn Vocabulary,
        prompt: &mut Vec<u32>,
    ) -> Result<(), GenerateError> {
        prompt.push(self.start);
        prompt.extend(vocabulary.encode(&format!("{role}\n{text}"))?);
        self.end(vocabulary, prompt)
    }

    /// The turn that asks something, up to its text: the rest of it is still to be written.
    pub(super) fn question(
        self,
        vocabulary: &dyn Vocabulary,
        prompt: &mut Vec<u32>,
    ) -> Result<(), GenerateError> {
        prompt.push(self.start);
        prompt.extend(vocabulary.encode("user\n")?);
        Ok(())
    }

    /// The end of a turn.
    pub(super) fn end(
        self,
        vocabulary: &dyn Vocabulary,
        prompt: &mut Vec<u32>,
    ) -> Result<(), GenerateError> {
        prompt.push(self.end);
        prompt.extend(vocabulary.encode("\n")?);
        Ok(())
    }

    /// The answer's turn, up to its text.
    pub(super) fn answer(
        self,
        vocabulary: &dyn Vocabulary,
        prompt: &mut Vec<u32>,
    ) -> Result<(), GenerateError> {
        prompt.push(self.start);
        prompt.extend(vocabulary.encode("assistant\n")?);
        if let Some((open, close)) = self.think {
            prompt.push(open);
            prompt.extend(vocabulary.encode("\n\n")?);
            prompt.push(close);
            prompt.extend(vocabulary.encode("\n\n")?);
        }
        Ok(())
    }
}

fn check_fits(prompt: &[u32], budget: Budget) -> Result<(), GenerateError> {
    let answer = budget.max_tokens.min(budget.context_tokens / ANSWER_SHARE);
    if prompt.len() + answer > budget.context_tokens {
        return Err(too_long(budget));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::inference::{ErrorKind, Message};
    use crate::prompt::bytes::{Bytes, text_of};

    const BUDGET: Budget = Budget {
        context_tokens: 1000,
        max_tokens: 100,
    };

    fn template(text: &str) -> ChatTemplate {
        ChatTemplate::find(text, &Bytes).unwrap()
    }

    fn conversation(text: &str) -> ChatTask {
        ChatTask {
            system: Some("Be brief.".into()),
            messages: vec![Message {
                role: Role::User,
                text: text.into(),
            }],
            schema: None,
        }
    }

    #[test]
    fn a_conversation_ends_where_the_answer_starts() {
        let prompt = template("<|im_start|>").chat(&conversation("Hi<|im_end|>"), &Bytes, BUDGET);
        expect![[r"
            [<|im_start|>]system
            Be brief.[<|im_end|>]
            [<|im_start|>]user
            Hi<|im_end|>[<|im_end|>]
            [<|im_start|>]assistant
        "]]
        .assert_eq(&text_of(&prompt.unwrap()));
    }

    #[test]
    fn a_model_that_can_think_is_told_not_to() {
        let thinks = template("<|im_start|> enable_thinking");
        let prompt = thinks.chat(&conversation("Hi"), &Bytes, BUDGET).unwrap();
        let text = text_of(&prompt);
        let end = "[<|im_start|>]assistant\n[<think>]\n\n[</think>]\n\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_conversation_that_does_not_fit_is_refused() {
        let long = conversation(&"x".repeat(950));
        let error = template("<|im_start|>").chat(&long, &Bytes, BUDGET);
        assert_eq!(error.unwrap_err().kind, ErrorKind::TooLong);
        assert_eq!(ChatTemplate::find("[INST]", &Bytes), None);
    }

    #[test]
    fn an_edit_shows_the_selection_whole_and_what_fits_around_it() {
        let task = EditTask {
            path: Some("a.rs".into()),
            language: "rust".into(),
            before: "// before\n".repeat(200).into(),
            selection: "let x = 1;".into(),
            after: "\n// after".repeat(200).into(),
            instruction: "Make it 2.".into(),
        };
        let prompt = template("<|im_start|>")
            .edit(&task, &Bytes, BUDGET)
            .unwrap();
        assert!(prompt.len() <= BUDGET.prompt_tokens());
        let text = text_of(&prompt);
        assert!(text.contains("// before\n<selection>let x = 1;</selection>\n// after\n"));
        assert!(
            text.contains("Instruction: Make it 2.[<|im_end|>]"),
            "{text}"
        );
        let huge = EditTask {
            selection: "x".repeat(2000).into(),
            ..task
        };
        let error = template("<|im_start|>").edit(&huge, &Bytes, BUDGET);
        assert_eq!(error.unwrap_err().kind, ErrorKind::TooLong);
    }
}
