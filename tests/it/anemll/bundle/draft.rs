//! A copy of a sound bundle, to be changed before it is opened.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tandem::backend::local::anemll::bundle::{AnemllBundle, BundleError};
use tempfile::TempDir;

use super::super::fixture;

/// The components of anemll-tiny on disk.
pub const EMBEDDINGS: &str = "qwen_embeddings.mlmodelc";
pub const FFN: &str = "qwen_FFN_PF_lut6_chunk_01of01.mlmodelc";
pub const LM_HEAD: &str = "qwen_lm_head_lut6.mlmodelc";

pub struct Draft {
    folder: TempDir,
}

impl Draft {
    /// A copy of anemll-tiny's bundle.
    pub fn tiny() -> Self {
        Self::of("anemll-tiny/anemll")
    }

    /// A copy of a fixture's bundle.
    pub fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&fixture(name), folder.path());
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn open(&self) -> Result<AnemllBundle, BundleError> {
        AnemllBundle::open(self.path())
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.file(name), bytes).unwrap();
    }

    /// Replaces `from`, which must be there, in meta.yaml.
    pub fn meta(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.file("meta.yaml")).unwrap();
        assert!(text.contains(from), "meta.yaml has no {from:?}");
        self.write("meta.yaml", text.replace(from, to));
    }

    /// Changes a JSON file.
    pub fn json(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&fs::read(self.file(name)).unwrap()).unwrap();
        change(&mut value);
        self.write(name, serde_json::to_vec(&value).unwrap());
    }

    /// Changes the model that a component's metadata.json describes.
    pub fn model(&self, component: &str, change: impl FnOnce(&mut Value)) {
        let name = format!("{component}/metadata.json");
        self.json(&name, |models| change(&mut models[0]));
    }

    /// Changes a tensor in the schemas of a function (by its place in `functions`; `None` for a
    /// component without functions).
    pub fn tensor(
        &self,
        component: &str,
        function: Option<usize>,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) {
        self.model(component, |model| {
            let schemas = match function {
                Some(index) => &mut model["functions"][index],
                None => model,
            };
            let sides = ["inputSchema", "outputSchema", "stateSchema"];
            let side = sides
                .iter()
                .find(|side| position(&schemas[**side], name).is_some());
            let side = &mut schemas[*side.unwrap_or_else(|| panic!("there is no {name}"))];
            let index = position(side, name).unwrap();
            change(&mut side[index]);
        });
    }

    /// Sets the shape of a tensor.
    pub fn shape(&self, component: &str, function: Option<usize>, name: &str, shape: &str) {
        self.tensor(component, function, name, |tensor| {
            tensor["shape"] = json!(shape);
        });
    }
}

/// Where a schema has the tensor of this name.
pub fn position(schema: &Value, name: &str) -> Option<usize> {
    let entries = schema.as_array()?;
    entries.iter().position(|entry| entry["name"] == name)
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
