//! Whether the parts of a bundle fit each other: every contradiction is found, not only the first.

use std::path::PathBuf;

use super::error::Faults;
use super::expect::{CAUSAL_MASK, Dim, Expected, Widths, element, inputs, outputs};
use super::logits::{self, LogitsOutput};
use super::meta::Meta;
use super::metadata::{Function, Metadata};
use crate::backend::local::anemll::contract::{Element, MAIN, Role, Shape, StateSpec};

/// More rows than any vocabulary has.
pub(super) const LARGEST_VOCABULARY: usize = 1 << 22;

/// What the pipeline passes from component to component.
const HALF: &[Element] = &[Element::Float16];
/// Token ids and positions.
const INTEGER: &[Element] = &[Element::Int32];

/// A component that was found and whose metadata.json was read.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) role: Role,
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
}

/// Which functions of a part are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Calls {
    /// For one token.
    pub(super) infer: String,
    /// For a batch of a prompt.
    pub(super) prefill: Option<String>,
}

/// What the parts agree on.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) batch_size: Option<usize>,
    pub(super) hidden: Option<usize>,
    pub(super) state: StateSpec,
    pub(super) logits: LogitsOutput,
    /// One for each part.
    pub(super) calls: Vec<Calls>,
}

/// Holds the parts against meta.yaml and each other. `None` comes with at least one fault.
pub(super) fn check(meta: &Meta, parts: &[Part], faults: &mut Faults) -> Option<Agreed> {
    if let Some(architecture) = &meta.architecture
        && !architecture.to_ascii_lowercase().starts_with("qwen")
    {
        let what = format!("the architecture is {architecture}, which is no Qwen");
        faults.unsupported("meta.yaml", what);
    }
    let batch_size = batch_size(meta, parts, faults);
    let mut check = Check {
        meta,
        batch_size,
        widths: Widths::default(),
        state: None,
        logits: None,
        faults,
    };
    let calls: Vec<Option<Calls>> = parts.iter().map(|part| check.part(part)).collect();
    let (widths, state, logits) = (check.widths, check.state, check.logits);
    let hidden = widths.agreed(faults);
    Some(Agreed {
        batch_size,
        hidden,
        state: state?.1,
        logits: logits?,
        calls: calls.into_iter().collect::<Option<_>>()?,
    })
}

/// How many tokens a prefill call takes: as meta.yaml says, else as the first prefill function
/// declares; `None` for an export without one.
fn batch_size(meta: &Meta, parts: &[Part], faults: &mut Faults) -> Option<usize> {
    let declared = parts.iter().find_map(|part| {
        let prefill = choose(&part.metadata, "prefill", meta.context_length)?;
        let mask = prefill
            .spec
            .inputs
            .iter()
            .find(|input| input.name == CAUSAL_MASK)?;
        match &mask.shape {
            Shape::Fixed(shape) => shape.get(2).copied(),
            Shape::Enumerated(_) | Shape::Dynamic => None,
        }
    });
    let batch = meta.batch_size.or(declared)?;
    if batch > meta.context_length {
        let what = format!(
            "batch_size is {batch}, more than context_length, which is {}",
            meta.context_length
        );
        faults.malformed("meta.yaml", what);
    }
    if batch == 1 {
        faults.malformed(
            "meta.yaml",
            "batch_size is 1: that is what infer takes, prefill takes several tokens. An export \
             without prefill names no batch_size",
        );
    }
    Some(batch)
}

/// The function for `task` (`infer` or `prefill`): by that name, or by the name that exports for
/// several contexts give it.
fn choose<'a>(metadata: &'a Metadata, task: &str, context: usize) -> Option<&'a Function> {
    metadata
        .function(task)
        .or_else(|| metadata.function(&format!("{task}_ctx{context}")))
}

struct Check<'a> {
    meta: &'a Meta,
    batch_size: Option<usize>,
    widths: Widths,
    /// The first state seen, and where.
    state: Option<(String, StateSpec)>,
    logits: Option<LogitsOutput>,
    faults: &'a mut Faults,
}

impl Check<'_> {
    fn part(&mut self, part: &Part) -> Option<Calls> {
        match part.role {
            Role::Embeddings => self.embeddings(part),
            Role::Ffn { chunk, of } => {
                self.chunk_number(part, chunk, of);
                self.stateful(part)
            }
            Role::LmHead => self.lm_head(part),
            Role::Monolithic => self.stateful(part),
        }
    }

    fn embeddings(&mut self, part: &Part) -> Option<Calls> {
        let only = self.only(part)?;
        let batched = choose(&part.metadata, "prefill", self.meta.context_length).unwrap_or(only);
        let mut calls = vec![(only, 1)];
        calls.extend(self.batch_size.map(|batch| (batched, batch)));
        for (function, tokens) in calls {
            let place = place(part, function);
            let ids = Expected::new("input_ids", INTEGER, &[Dim::Is(1), Dim::Is(tokens)]);
            let states = [Dim::Is(1), Dim::Is(tokens), Dim::Hidden];
            let states = Expected::new("hidden_states", HALF, &states);
            inputs(function, &place, &[ids], &mut self.widths, self.faults);
            outputs(function, &place, &[states], &mut self.widths, self.faults);
            self.no_state(function, &place);
        }
        Some(Calls {
            infer: only.spec.name.clone(),
            prefill: self.batch_size.map(|_| batched.spec.name.clone()),
        })
    }

    fn lm_head(&mut self, part: &Part) -> Option<Calls> {
        let only = self.only(part)?;
        let place = place(part, only);
        let states = [Dim::Is(1), Dim::Is(1), Dim::Hidden];
        let states = Expected::new("hidden_states", HALF, &states);
        inputs(only, &place, &[states], &mut self.widths, self.faults);
        self.no_state(only, &place);
        self.logits = logits::output(only, &part.metadata, &place, self.meta, self.faults);
        Some(Calls {
            infer: only.spec.name.clone(),
            prefill: None,
        })
    }

    /// Blocks, alone or with what goes before and after them.
    fn stateful(&mut self, part: &Part) -> Option<Calls> {
        let context = self.meta.context_length;
        let prefill = choose(&part.metadata, "prefill", context);
        let infer = choose(&part.metadata, "infer", context);
        // Without functions there is one schema, and one token at a time is all it can mean.
        let infer = infer.or_else(|| part.metadata.function(MAIN));
        match (infer, prefill, self.batch_size) {
            (Some(infer), None, Some(batch)) => self.no_prefill(part, infer, batch),
            (None, _, _) => {
                let names: Vec<&str> = part
                    .metadata
                    .functions
                    .iter()
                    .map(|function| function.spec.name.as_str())
                    .collect();
                let what = format!("the function infer is missing; it has {}", names.join(", "));
                self.faults.malformed(&part.role.name(), what);
            }
            (Some(_), _, _) => {}
        }
        if let Some(infer) = infer {
            self.blocks(part, infer, 1);
            if part.role == Role::Monolithic {
                let place = place(part, infer);
                self.logits = logits::output(infer, &part.metadata, &place, self.meta, self.faults);
            }
        }
        if let (Some(prefill), Some(batch)) = (prefill, self.batch_size) {
            self.blocks(part, prefill, batch);
        }
        Some(Calls {
            infer: infer?.spec.name.clone(),
            prefill: prefill.map(|prefill| prefill.spec.name.clone()),
        })
    }

    fn no_prefill(&mut self, part: &Part, infer: &Function, batch: usize) {
        let mut what = format!(
            "the function prefill is missing, but meta.yaml says that prompts go in batches of {batch}"
        );
        if infer.spec.name == MAIN {
            what.push_str(
                ". Its metadata.json declares no functions, and its one schema is that of infer, \
                 for a single token: taken for prefill as well, the second token of a prompt would \
                 ask for row 1 of a mask of one row",
            );
        }
        self.faults.malformed(&part.role.name(), what);
    }

    fn blocks(&mut self, part: &Part, function: &Function, tokens: usize) {
        let place = place(part, function);
        let context = self.meta.context_length;
        let (one, many) = (Dim::Is(1), Dim::Is(tokens));
        let first = if part.role == Role::Monolithic {
            Expected::new("input_ids", INTEGER, &[one, many])
        } else {
            Expected::new("hidden_states", HALF, &[one, many, Dim::Hidden])
        };
        let mut positions = Expected::new("position_ids", INTEGER, &[many]);
        // For a single token the position comes from current_pos, and this one may be gone.
        positions.required = tokens > 1;
        let wanted = [
            first,
            positions,
            Expected::new(CAUSAL_MASK, HALF, &[one, one, many, Dim::Is(context)]),
            Expected::new("current_pos", INTEGER, &[one]),
        ];
        inputs(function, &place, &wanted, &mut self.widths, self.faults);
        if let Role::Ffn { chunk, of } = part.role {
            let mut given = Expected::new("output_hidden_states", HALF, &[one, many, Dim::Hidden]);
            if chunk == of {
                // The last chunk gives the first row only, which nobody reads; older ones gave all.
                given.shapes.insert(0, vec![one, one, Dim::Hidden]);
            }
            outputs(function, &place, &[given], &mut self.widths, self.faults);
        }
        self.one_state(function, &place);
    }

    fn one_state(&mut self, function: &Function, place: &str) {
        let [state] = function.spec.states.as_slice() else {
            let told = function
                .problems
                .iter()
                .any(|problem| problem.contains("state "));
            match function.spec.states.len() {
                0 if told => {}
                0 => self
                    .faults
                    .malformed(place, "it has no state to keep keys and values in"),
                more => self
                    .faults
                    .unsupported(place, format!("it has {more} states, not one")),
            }
            return;
        };
        if let Some((first, agreed)) = &self.state {
            if agreed != state {
                let what = format!(
                    "its state is {}, but {first} has {}",
                    shown(state),
                    shown(agreed)
                );
                self.faults.malformed(place, what);
            }
            return;
        }
        self.state = Some((place.to_owned(), state.clone()));
        let context = self.meta.context_length;
        match state.shape.as_slice() {
            [rows, _, slots, _] if rows.is_multiple_of(2) && *slots == context => {}
            _ => {
                let what = format!(
                    "its state is {}, but [2 x layers, key-value heads, {context}, head size] is \
                     needed for the context_length of meta.yaml",
                    shown(state)
                );
                self.faults.malformed(place, what);
            }
        }
        if state.element != Element::Float16 {
            let what = format!("its state is {}, not of Float16", shown(state));
            self.faults.malformed(place, what);
        }
    }

    fn no_state(&mut self, function: &Function, place: &str) {
        if !function.spec.states.is_empty() {
            self.faults.unsupported(place, "it has a state of its own");
        }
    }

    /// The only function of a component that has no phases, or its `infer`.
    fn only<'a>(&mut self, part: &'a Part) -> Option<&'a Function> {
        let metadata = &part.metadata;
        let found = match metadata.functions.as_slice() {
            [only] => Some(only),
            _ => metadata
                .function(MAIN)
                .or_else(|| choose(metadata, "infer", self.meta.context_length)),
        };
        if found.is_none() {
            let what = "it has several functions, and none is called main or infer";
            self.faults.malformed(&part.role.name(), what);
        }
        found
    }

    /// A chunk that says it is another one would compute the wrong blocks without any error.
    fn chunk_number(&mut self, part: &Part, chunk: usize, of: usize) {
        for (key, expected) in [("chunk_no", chunk), ("num_chunks", of)] {
            let said = part.metadata.anemll(key).and_then(|said| said.parse().ok());
            if let Some(said) = said.filter(|said: &usize| *said != expected) {
                let what = format!("its metadata.json says {key} {said}");
                self.faults.malformed(&part.role.name(), what);
            }
        }
    }
}

/// A component's function, for people; the component alone where it has only one.
fn place(part: &Part, function: &Function) -> String {
    let component = part.role.name();
    match function.spec.name.as_str() {
        MAIN => component,
        name => format!("{component}, function {name}"),
    }
}

fn shown(state: &StateSpec) -> String {
    format!(
        "{} {} {:?}",
        state.name,
        element(state.element),
        state.shape
    )
}
