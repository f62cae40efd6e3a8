//! Prompts: a task, a model's template and a token budget become text. Pure.
