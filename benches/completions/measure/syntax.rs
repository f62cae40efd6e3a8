//! Source as tree-sitter sees it.

use serde::{Deserialize, Serialize};
use tree_sitter::{Node, Parser, Tree, TreeCursor};

/// The languages that are measured.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    Rust,
    Python,
    #[value(name = "typescript")]
    TypeScript,
    Go,
}

impl Language {
    /// In the order of the tables.
    pub const ALL: [Self; 4] = [Self::Rust, Self::Python, Self::TypeScript, Self::Go];

    /// The identifier that LSP gives it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::TypeScript => "typescript",
            Self::Go => "go",
        }
    }

    /// Of its files, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Rust => "rs",
            Self::Python => "py",
            Self::TypeScript => "ts",
            Self::Go => "go",
        }
    }

    /// Nodes that are the inside of something: a function, a loop, a record.
    pub fn blocks(self) -> &'static [&'static str] {
        match self {
            Self::Rust => &["block", "match_block", "field_declaration_list"],
            Self::Python => &["block"],
            Self::TypeScript => &["statement_block", "interface_body", "object"],
            Self::Go => &["block", "field_declaration_list"],
        }
    }

    fn grammar(self) -> tree_sitter::Language {
        match self {
            Self::Rust => tree_sitter_rust::LANGUAGE.into(),
            Self::Python => tree_sitter_python::LANGUAGE.into(),
            Self::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
            Self::Go => tree_sitter_go::LANGUAGE.into(),
        }
    }
}

/// Parses any text: what does not parse becomes error nodes.
pub fn parse(language: Language, text: &str) -> Tree {
    let mut parser = Parser::new();
    parser
        .set_language(&language.grammar())
        .expect("the grammars are of versions that this tree-sitter reads");
    parser
        .parse(text, None)
        .expect("parsing ends without a tree only when it is cancelled")
}

/// How many pieces of `text` the grammar cannot place, and how many it misses.
pub fn errors(language: Language, text: &str) -> usize {
    let tree = parse(language, text);
    let mut count = 0;
    walk(&mut tree.walk(), &mut |node| {
        count += usize::from(node.is_error() || node.is_missing());
        node.has_error()
    });
    count
}

/// Hands every node to `visit`, parents first; below a node it goes where `visit` says so.
pub fn walk<'tree>(cursor: &mut TreeCursor<'tree>, visit: &mut impl FnMut(Node<'tree>) -> bool) {
    loop {
        if visit(cursor.node()) && cursor.goto_first_child() {
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return;
            }
        }
    }
}
