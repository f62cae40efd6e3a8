//! A model's text in any pieces, between any prefix and suffix: what is kept is worth inserting,
//! and how the text was cut into pieces makes no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::inference::{CompleteTask, CompletionShape, EditTask, EmptyReason};
use tandem::postprocess::{CompletionFilter, Progress, TextFilter};

fuzz_target!(|input: (&str, &str, Vec<&str>, &str, u8)| {
    let (prefix, suffix, pieces, stop, shape) = input;
    let stops: Vec<String> = [stop]
        .into_iter()
        .filter(|stop| !stop.is_empty())
        .map(str::to_owned)
        .collect();
    let task = CompleteTask {
        path: None,
        language: "rust".to_owned(),
        prefix: prefix.into(),
        suffix: suffix.into(),
        snippets: Vec::new(),
        shape: match shape % 3 {
            0 => CompletionShape::Auto,
            1 => CompletionShape::OneLine,
            _ => CompletionShape::Lines,
        },
    };
    let whole = pieces.concat();
    let kept = completion(&task, &stops, &pieces);
    assert_eq!(kept, completion(&task, &stops, &[&whole]));
    if let Ok(kept) = kept {
        assert!(!kept.trim().is_empty(), "{kept:?}");
        if task.shape == CompletionShape::OneLine {
            assert!(!kept.contains('\n'), "{kept:?}");
        }
    }

    let replaced = EditTask {
        path: None,
        language: "rust".to_owned(),
        before: "".into(),
        selection: prefix.into(),
        after: suffix.into(),
        instruction: String::new(),
    };
    assert_eq!(
        passed_on(TextFilter::chat(&stops), &pieces),
        passed_on(TextFilter::chat(&stops), &[&whole]),
    );
    assert_eq!(
        passed_on(TextFilter::edit(&replaced, &stops), &pieces),
        passed_on(TextFilter::edit(&replaced, &stops), &[&whole]),
    );
});

fn completion(
    task: &CompleteTask,
    stops: &[String],
    pieces: &[&str],
) -> Result<String, EmptyReason> {
    let mut filter = CompletionFilter::new(task, stops);
    for piece in pieces {
        if filter.push(piece) == Progress::Enough {
            break;
        }
    }
    filter.finish()
}

fn passed_on(mut filter: TextFilter, pieces: &[&str]) -> String {
    let mut text = String::new();
    for piece in pieces {
        let progress = filter.push(piece);
        text += &filter.take();
        if progress == Progress::Enough {
            break;
        }
    }
    text + &filter.finish()
}
