//! What the embedded model is asked for.

use tandem::config::Settings;

use super::{World, complete, embedded};

#[tokio::test(start_paused = true)]
async fn the_embedded_model_fills_an_empty_block_and_else_keeps_to_the_line() {
    let said = "let a = 1;\n    let b = 2;\n";
    let world = World::new(Settings::default(), None, Some(embedded(said)), None);
    for (prefix, suffix, expected) in [
        ("fn f() {\n    ", "\n}\n", said.trim_end()),
        ("fn f() {\n    ", "\n    g();\n}\n", "let a = 1;"),
        ("fn f() {\n    g();\n    ", "\n}\n", "let a = 1;"),
    ] {
        let answer = world.ask(complete(prefix, suffix)).await.unwrap();
        assert_eq!(answer.text, expected, "{prefix}|{suffix}");
    }
}
