//! What each function of each component computes, read from what it declares and held to the
//! weights: every contradiction between the two is named.

use std::ops::Range;

use crate::backend::local::anemll::contract::{
    ComponentSpec, Element, FunctionSpec, MAIN, Role, Shape, StateSpec, TensorSpec,
};
use crate::backend::local::model_config::ModelConfig;

/// What a function computes: its source, through its blocks if it has any, into its sink.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Program {
    /// What the tokens come in as.
    pub source: Source,
    /// The blocks they go through.
    pub pass: Option<Pass>,
    /// What comes out.
    pub sink: Sink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// `input_ids`.
    Ids,
    /// `hidden_states`.
    Hidden,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pass {
    pub layers: Range<usize>,
    pub mode: Mode,
    /// Whether these are the model's last blocks: `prefill` then gives only its first row, and
    /// `infer` norms what it gives.
    pub last: bool,
}

/// How a pass learns where its tokens stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// One token, turned by `current_pos` and stored there; `position_ids` is declared and dead.
    Infer,
    /// Several tokens, turned by `position_ids` and stored from `current_pos` on.
    Prefill,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sink {
    /// Hidden states, under this name.
    Hidden(&'static str),
    /// Logits: the parts' names and the rows of the vocabulary that each gives.
    Logits(Vec<(String, Range<usize>)>),
    /// `argmax_idx` and `argmax_val`: for each part its best row, counted from the part's first,
    /// and that row's logit.
    Argmax,
}

/// The names of the outputs of an `argmax_in_model` export.
pub(super) const ARGMAX: [&str; 2] = ["argmax_idx", "argmax_val"];

/// A size in a shape that a function may declare.
#[derive(Clone, Copy)]
enum Size {
    /// This.
    Is(usize),
    /// As many as there are tokens in a call.
    Tokens,
    /// The number of the head's parts, with or without dimensions of one around it.
    Parts,
}

struct Expected {
    name: String,
    elements: &'static [Element],
    sizes: Vec<Size>,
}

const INTEGERS: &[Element] = &[Element::Int32];
const HALVES: &[Element] = &[Element::Float16];
const FLOATS: &[Element] = &[Element::Float16, Element::Float32];

/// The layers of a chunk, counted from 1. ANEMLL's converter gives each chunk the same number; from
/// 0.3.5 on what is left over goes to the first ones, one each (0.3.4 leaves it out, and with it a
/// part of the model).
pub(super) fn layers_of(chunk: usize, of: usize, layers: usize) -> Range<usize> {
    part_of(chunk - 1, of, layers)
}

/// The rows of part `index` of `count`: equal parts, the first ones one larger where they must be.
pub(super) fn part_of(index: usize, count: usize, rows: usize) -> Range<usize> {
    let (size, larger) = (rows / count, rows % count);
    let start = index * size + index.min(larger);
    start..start + size + usize::from(index < larger)
}

/// The number in `logits7`; `logits` alone is the first.
fn part_number(name: &str) -> Option<usize> {
    match name.strip_prefix("logits")? {
        "" => Some(1),
        digits => digits.parse().ok(),
    }
}

/// The model's dimensions as the components declare them, and what is wrong with them.
pub(super) struct Declared<'a> {
    config: &'a ModelConfig,
    /// The shape of the cache, if any component declares one.
    pub cache: Option<[usize; 4]>,
    /// The cache's name.
    pub cache_name: String,
    /// Every contradiction found.
    pub contradictions: Vec<String>,
    hidden: usize,
}

impl<'a> Declared<'a> {
    /// Reads the dimensions and compares them with those of the weights.
    pub fn read(components: &[ComponentSpec], config: &'a ModelConfig) -> Self {
        let mut declared = Self {
            config,
            cache: None,
            cache_name: String::new(),
            contradictions: Vec::new(),
            hidden: config.hidden,
        };
        declared.read_cache(components);
        declared.read_hidden(components);
        declared
    }

    fn says(&mut self, contradiction: String) {
        if !self.contradictions.contains(&contradiction) {
            self.contradictions.push(contradiction);
        }
    }

    fn read_cache(&mut self, components: &[ComponentSpec]) {
        let functions = components.iter().flat_map(|spec| &spec.functions);
        let states: Vec<&StateSpec> = functions.flat_map(|function| &function.states).collect();
        let Some(first) = states.first() else { return };
        if states.iter().any(|state| state != first) {
            self.says("the components declare different states".to_owned());
        }
        let Ok([rows, kv_heads, context, head_dim]) = <[usize; 4]>::try_from(&*first.shape) else {
            let fact = format!("the state {} has the shape {:?}", first.name, first.shape);
            return self.says(format!("{fact}, not four dimensions"));
        };
        if first.element != Element::Float16 {
            self.says(format!("the state {} is {:?}", first.name, first.element));
        }
        let ModelConfig { layers, .. } = *self.config;
        if rows != 2 * layers {
            self.says(format!(
                "the bundle's cache has {rows} rows, the weights' {layers} layers need {}",
                2 * layers
            ));
        }
        for (what, bundle, weights) in [
            ("key-value heads", kv_heads, self.config.kv_heads),
            ("as head_dim", head_dim, self.config.head_dim),
        ] {
            if bundle != weights {
                self.says(format!(
                    "the bundle's cache has {bundle} {what}, the weights have {weights}"
                ));
            }
        }
        if context == 0 || context > self.config.context_tokens {
            self.says(format!(
                "the bundle's context is {context} tokens, the weights are for {}",
                self.config.context_tokens
            ));
        }
        self.cache = Some([rows, kv_heads, context, head_dim]);
        self.cache_name.clone_from(&first.name);
    }

    fn read_hidden(&mut self, components: &[ComponentSpec]) {
        let functions = components.iter().flat_map(|spec| &spec.functions);
        let mut tensors = functions.flat_map(|it| it.inputs.iter().chain(&it.outputs));
        let hidden = tensors.find_map(|tensor| match &tensor.shape {
            Shape::Fixed(shape) if tensor.name.ends_with("hidden_states") => shape.last().copied(),
            _ => None,
        });
        self.hidden = hidden.unwrap_or(self.config.hidden);
        if self.hidden != self.config.hidden {
            self.says(format!(
                "the bundle's hidden size is {}, the weights' is {}",
                self.hidden, self.config.hidden
            ));
        }
    }

    /// What a function computes. What contradicts itself or the weights is noted.
    pub fn program(&mut self, role: Role, function: &FunctionSpec) -> Option<Program> {
        let (mode, layers) = match (role, mode_named(&function.name)) {
            (Role::Embeddings | Role::LmHead, None) if function.name == MAIN => (None, 0..0),
            (Role::Ffn { chunk, of }, Some(mode)) if (1..=of).contains(&chunk) => {
                (Some(mode), layers_of(chunk, of, self.config.layers))
            }
            (Role::Monolithic, Some(mode)) => (Some(mode), 0..self.config.layers),
            _ => {
                let (component, name) = (role.name(), &function.name);
                self.says(format!("{component} has no function {name} in this format"));
                return None;
            }
        };
        let source = match role {
            Role::Embeddings | Role::Monolithic => Source::Ids,
            Role::Ffn { .. } | Role::LmHead => Source::Hidden,
        };
        let last = match role {
            Role::Ffn { chunk, of } => {
                if of > self.config.layers {
                    self.says(format!(
                        "the bundle has {of} chunks, the weights have {} layers",
                        self.config.layers
                    ));
                }
                chunk == of
            }
            Role::Embeddings | Role::LmHead | Role::Monolithic => true,
        };
        let pass = mode.map(|mode| Pass { layers, mode, last });
        let sink = match (role, mode) {
            (Role::Embeddings, _) => Sink::Hidden("hidden_states"),
            (Role::Ffn { .. }, _) | (_, Some(Mode::Prefill)) => Sink::Hidden(OUTPUT_HIDDEN),
            (Role::LmHead | Role::Monolithic, _) => self.head(role, function),
        };
        let program = Program { source, pass, sink };
        self.hold(role, function, &program);
        Some(program)
    }

    /// The sink of a function that ends in logits.
    fn head(&mut self, role: Role, function: &FunctionSpec) -> Sink {
        if function
            .outputs
            .iter()
            .any(|it| ARGMAX.contains(&&*it.name))
        {
            return Sink::Argmax;
        }
        let numbered = |tensor: &'_ TensorSpec| Some((part_number(&tensor.name)?, tensor.clone()));
        let mut parts: Vec<(usize, TensorSpec)> =
            function.outputs.iter().filter_map(numbered).collect();
        parts.sort_by_key(|(number, _)| *number);
        let vocabulary = self.config.vocabulary;
        let (count, mut rows) = (parts.len(), 0);
        let sizes: Vec<(String, Range<usize>)> = (0..count)
            .zip(parts)
            .map(|(index, (_, tensor))| {
                let size = match &tensor.shape {
                    Shape::Fixed(shape) => shape.last().copied().unwrap_or_default(),
                    Shape::Enumerated(_) | Shape::Dynamic => {
                        part_of(index, count, vocabulary).len()
                    }
                };
                rows += size;
                (tensor.name, rows - size..rows)
            })
            .collect();
        if rows != vocabulary {
            self.says(format!(
                "{} gives {rows} logits, the weights' vocabulary is {vocabulary}",
                role.name()
            ));
        }
        Sink::Logits(sizes)
    }

    /// Notes every input and output that is not as the program needs it.
    fn hold(&mut self, role: Role, function: &FunctionSpec, program: &Program) {
        let context = self.cache.map_or(0, |[_, _, context, _]| context);
        let place = format!("{}, function {}", role.name(), function.name);
        if program.pass.is_some() != (function.states.len() == 1) {
            self.says(format!(
                "{place}: it declares {} states",
                function.states.len()
            ));
        }
        let inputs = expected_inputs(program, self.hidden, context);
        let outputs = expected_outputs(program, self.hidden);
        for (kind, expected, declared) in [
            ("input", inputs, &function.inputs),
            ("output", outputs, &function.outputs),
        ] {
            for tensor in declared {
                let Some(expected) = expected.iter().find(|it| it.name == tensor.name) else {
                    let name = &tensor.name;
                    self.says(format!("{place}: the {kind} {name} is not of this format"));
                    continue;
                };
                if !expected.elements.contains(&tensor.element) || !expected.admits(&tensor.shape) {
                    let (name, element, shape) = (&tensor.name, tensor.element, &tensor.shape);
                    self.says(format!(
                        "{place}: the {kind} {name} is {element:?} {shape:?}, where {} fits",
                        expected.text()
                    ));
                }
            }
            for missing in expected {
                if !declared.iter().any(|tensor| tensor.name == missing.name) {
                    self.says(format!("{place}: the {kind} {} is missing", missing.name));
                }
            }
        }
    }
}

/// The name of what the blocks give.
const OUTPUT_HIDDEN: &str = "output_hidden_states";

/// `infer`, `prefill`, and the same for one of several contexts (`infer_ctx512`).
fn mode_named(function: &str) -> Option<Mode> {
    match function
        .split_once("_ctx")
        .map_or(function, |(mode, _)| mode)
    {
        "infer" => Some(Mode::Infer),
        "prefill" => Some(Mode::Prefill),
        _ => None,
    }
}

fn expected_inputs(program: &Program, hidden: usize, context: usize) -> Vec<Expected> {
    use Size::{Is, Tokens};
    // The head, and a pass that infers, take one token.
    let tokens = match (&program.pass, &program.sink) {
        (Some(pass), _) if pass.mode == Mode::Infer => Is(1),
        (None, Sink::Logits(_) | Sink::Argmax) => Is(1),
        _ => Tokens,
    };
    let mut inputs = vec![match program.source {
        Source::Ids => expected("input_ids", INTEGERS, &[Is(1), tokens]),
        Source::Hidden => expected("hidden_states", HALVES, &[Is(1), tokens, Is(hidden)]),
    }];
    if program.pass.is_some() {
        let mask = [Is(1), Is(1), tokens, Is(context)];
        inputs.push(expected("position_ids", INTEGERS, &[tokens]));
        inputs.push(expected("causal_mask", HALVES, &mask));
        inputs.push(expected("current_pos", INTEGERS, &[Is(1)]));
    }
    inputs
}

fn expected_outputs(program: &Program, hidden: usize) -> Vec<Expected> {
    use Size::{Is, Parts, Tokens};
    match &program.sink {
        Sink::Hidden(name) => {
            let tokens = match &program.pass {
                Some(pass) if pass.last || pass.mode == Mode::Infer => Is(1),
                _ => Tokens,
            };
            vec![expected(name, HALVES, &[Is(1), tokens, Is(hidden)])]
        }
        Sink::Logits(parts) => {
            let part = |(name, rows): &(String, Range<usize>)| {
                expected(name, FLOATS, &[Is(1), Is(1), Is(rows.len())])
            };
            parts.iter().map(part).collect()
        }
        Sink::Argmax => {
            let [index, value] = ARGMAX;
            vec![
                expected(index, INTEGERS, &[Parts]),
                expected(value, FLOATS, &[Parts]),
            ]
        }
    }
}

fn expected(name: &str, elements: &'static [Element], sizes: &[Size]) -> Expected {
    Expected {
        name: name.to_owned(),
        elements,
        sizes: sizes.to_vec(),
    }
}

impl Expected {
    fn admits(&self, shape: &Shape) -> bool {
        let fits = |shape: &Vec<usize>| {
            if let [Size::Parts] = self.sizes[..] {
                return shape.iter().filter(|size| **size != 1).count() <= 1;
            }
            let each = shape.iter().zip(&self.sizes);
            shape.len() == self.sizes.len()
                && each.into_iter().all(|(size, expected)| match expected {
                    Size::Is(exactly) => size == exactly,
                    Size::Tokens | Size::Parts => *size > 0,
                })
        };
        match shape {
            Shape::Fixed(shape) => fits(shape),
            Shape::Enumerated(shapes) => shapes.iter().all(fits),
            Shape::Dynamic => true,
        }
    }

    fn text(&self) -> String {
        let size = |size: &Size| match size {
            Size::Is(size) => size.to_string(),
            Size::Tokens => "tokens".to_owned(),
            Size::Parts => "parts".to_owned(),
        };
        let sizes: Vec<String> = self.sizes.iter().map(size).collect();
        format!("{:?} [{}]", self.elements[0], sizes.join(", "))
    }
}
