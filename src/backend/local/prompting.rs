//! From a task to what decoding it needs: the prompt in the model's own form, and where it ends.

use std::sync::Arc;

use super::decode::DecodeRequest;
use super::grammar::Grammar;
use super::guide::Guide;
use super::infinigram::{self, InfiniGram};
use super::loader::Loaded;
use super::lookup::Lookup;
use crate::inference::{
    AnswerSchema, CompleteTask, CompletionShape, ErrorKind, GenerateError, GenerateRequest, Task,
};
use crate::prompt::chat::told_schema;
use crate::prompt::{Budget, Vocabulary as _, chatml::ChatTemplate, completion, fit};

/// The tokens of the texts around a cursor.
struct Around {
    /// Of the document, before the cursor.
    before: Vec<u32>,
    /// Of the document, after it.
    after: Vec<u32>,
    /// Of each snippet of another document.
    others: Vec<Vec<u32>>,
}

impl Around {
    fn lookup(&self) -> Lookup {
        let others = self.others.iter().map(Vec::as_slice);
        Lookup::new(others.chain([self.after.as_slice()]), &self.before)
    }
}

impl Loaded {
    /// What decoding a request needs.
    ///
    /// # Errors
    /// When it does not fit, or the model cannot do such a task.
    pub(super) fn prompt(&self, request: GenerateRequest) -> Result<DecodeRequest, GenerateError> {
        let budget = Budget {
            context_tokens: self.context_tokens,
            max_tokens: self.model.window().answer_room(request.max_tokens),
        };
        let mut stop = request.stop;
        let mut ends = &self.ends;
        let mut guide = Guide::default();
        let mut around = None;
        let mut prompt = match &request.task {
            Task::Complete(task) => {
                ends = &self.completion_ends;
                if task.shape == CompletionShape::OneLine {
                    stop.push("\n".to_owned());
                }
                let heals = self.model.gives_logits();
                let (tokenizer, prompting) = (&self.tokenizer, &self.prompting);
                let prompt = completion::render(task, tokenizer, prompting, budget, heals)?;
                stop.extend(prompt.stop);
                let texts = self.around(task, prompt.begun)?;
                let copies = self.prompting.profile.copies;
                let grams = texts.as_ref().filter(|_| copies);
                let grams = grams.map(|it| InfiniGram::new(&it.before, &it.after, &it.others));
                guide = Guide::new(prompt.begun, grams);
                around = texts;
                prompt.tokens
            }
            Task::Chat(task) => {
                let template = self.chat()?;
                if let Some(schema) = &task.schema {
                    guide = Guide::by(self.grammar(schema)?);
                }
                template.chat(&told_schema(task), &self.tokenizer, budget)?
            }
            Task::Edit(task) => self.chat()?.edit(task, &self.tokenizer, budget)?,
        };
        if prompt.is_empty() {
            // Nothing stands before the cursor: the model starts a text, as after the end of one.
            prompt.extend(ends.iter().min());
        }
        if prompt.is_empty() {
            return Err(GenerateError::new(
                ErrorKind::InvalidRequest,
                "there is nothing to complete",
                "Type something first.",
            ));
        }
        let lookup = (self.model.ahead() > 0).then(|| match &around {
            Some(around) => around.lookup(),
            // A conversation: what it is about is in it.
            None => Lookup::new([], &prompt),
        });
        Ok(DecodeRequest {
            prompt,
            lookup,
            sampling: request.sampling,
            max_tokens: request.max_tokens,
            ends: Arc::clone(ends),
            stop,
            guide,
        })
    }

    /// The texts around the cursor, for a model that is told what they say or whose answer is looked up in
    /// them: the whole document, and not just what the prompt has of it. The text before the cursor counts
    /// up to the piece that is `begun`.
    fn around(&self, task: &CompleteTask, begun: &str) -> Result<Option<Around>, GenerateError> {
        if !self.prompting.profile.copies && self.model.ahead() == 0 {
            return Ok(None);
        }
        let before = &task.prefix[..task.prefix.len() - begun.len()];
        let before = fit::end_of(before, infinigram::MOST_TOKENS, &self.tokenizer)?.tokens;
        let after = fit::beginning_of(&task.suffix, infinigram::MOST_AFTER, &self.tokenizer)?;
        let others = task.snippets.iter();
        let others = others.map(|snippet| self.tokenizer.encode(&snippet.text));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Around {
            before,
            after,
            others,
        }))
    }

    fn grammar(&self, schema: &AnswerSchema) -> Result<Grammar, GenerateError> {
        if !self.model.gives_logits() {
            return Err(GenerateError::new(
                ErrorKind::Unavailable,
                "this Core ML bundle chooses its tokens itself, so its answer cannot be held to a schema",
                "Export it with a head that gives logits, or allow Claude.",
            ));
        }
        self.tokenizer.grammar(schema, &self.ends)
    }

    fn chat(&self) -> Result<ChatTemplate, GenerateError> {
        self.chat.ok_or_else(|| {
            GenerateError::new(
                ErrorKind::Unavailable,
                "this local model completes code and holds no conversations",
                "Set `local.model` to a Qwen model with a chat template, or allow Claude.",
            )
        })
    }
}
