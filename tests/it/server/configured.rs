//! Who may say what about an inference server, and where its key comes from.

use serde_json::json;
use tandem::config::{
    ApiKey, EditorOptions, Layer, Layers, Options, Origin, ProjectOptions, from_environment,
};

#[test]
fn the_keys_of_claude_and_of_the_server_come_from_where_only_the_user_writes() {
    let user = Options::from_yaml("server: {api_key_command: [pass]}", "config.yaml").unwrap();
    let mut layers = Layers {
        environment: from_environment([("TANDEM_SERVER_API_KEY".to_owned(), " tk-1 ".to_owned())])
            .unwrap(),
        user: Some(Layer::new("config.yaml", user)),
        ..Layers::default()
    };
    assert_eq!(layers.settings().server.api_key, ApiKey::new("tk-1"));
    let variable = Origin::Variable("TANDEM_SERVER_API_KEY".into());
    assert_eq!(layers.server_key_origin(), Some(variable));
    assert_eq!(
        (layers.key_origin(), layers.settings().claude.api_key),
        (None, None)
    );
    layers.environment.clear();
    let file = Origin::UserFile("config.yaml".into());
    assert_eq!(layers.server_key_origin(), Some(file));
    // A project, and the editor, may keep their completions from it, and nothing more.
    assert!(layers.settings().server.automatic_completions);
    let project = "server: {automatic_completions: false}";
    let project = ProjectOptions::from_yaml(project, ".tandem.yaml").unwrap();
    layers.projects = vec![Layer::new(".tandem.yaml", project)];
    assert!(!layers.settings().server.automatic_completions);
    layers.projects.clear();
    layers.editor =
        EditorOptions::from_json(&json!({"server": {"automatic_completions": false}})).unwrap();
    assert!(!layers.settings().server.automatic_completions);
}
