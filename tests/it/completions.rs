//! The pure half of `cargo bench --bench completions`, and that what it measures on was held out of
//! the training of the embedded model.

mod controls;
mod edit;
mod holes;
#[expect(dead_code, reason = "what only the bench asks of it")]
#[path = "../../benches/completions/measure/mod.rs"]
mod measure;
mod person;
mod score;
mod syntax;

use std::collections::BTreeSet;

use serde_json::Value;

#[test]
fn what_is_measured_on_was_held_out() {
    let packages = include_str!("../../benches/completions/packages.json");
    let data = include_str!("../../models/tandem-mini/data.json");
    let packages: Value = serde_json::from_str(packages).unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    let held_out: BTreeSet<&str> = data["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| package["held_out"] == true)
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    let packages = packages.as_array().unwrap();
    assert!(packages.len() > 50);
    for package in packages {
        let name = package["name"].as_str().unwrap();
        assert!(held_out.contains(name), "{name}");
    }
}
