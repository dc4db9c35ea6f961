use super::*;

const GOOD: &str = r#"
cluster = "dev"
seeds = ["127.0.0.1:7401", "127.0.0.1:7402"]
ca = "ca.pem"
certificate = "/keys/client.pem"
key = "client.key"
"#;

fn parse_text(text: &str) -> Result<ContextFile, ConnectError> {
    parse("dev", Path::new("/config/kv/contexts/dev.toml"), text)
}

#[test]
fn paths_are_relative_to_the_file() {
    let context = parse_text(GOOD).unwrap();
    assert_eq!(context.ca, Path::new("/config/kv/contexts/ca.pem"));
    assert_eq!(context.client.certificate, Path::new("/keys/client.pem"));
    assert_eq!((context.cluster.as_str(), context.seeds.len()), ("dev", 2));
    assert_eq!(context.admin, None);
}

#[test]
fn files_with_mistakes_are_refused_with_their_place() {
    for (text, part) in [
        (GOOD.replace("ca =", "cca ="), "cca"),
        (GOOD.replace("cluster = \"dev\"", ""), "cluster"),
        (
            GOOD.replace(r#"["127.0.0.1:7401", "127.0.0.1:7402"]"#, "[]"),
            "seeds",
        ),
        (format!("{GOOD}admin_key = \"a\"\n"), "need each other"),
        ("cluster = ".to_owned(), "1"),
    ] {
        let error = parse_text(&text).unwrap_err();
        assert_eq!(error.code(), "bad-context");
        assert!(error.to_string().contains("contexts/dev.toml"), "{error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn an_admin_pair_is_optional() {
    let text = format!("{GOOD}admin_certificate = \"admin.pem\"\nadmin_key = \"admin.key\"\n");
    let admin = parse_text(&text).unwrap().admin.unwrap();
    assert_eq!(admin.key, Path::new("/config/kv/contexts/admin.key"));
}

#[test]
fn names_cannot_leave_the_directory() {
    let directory = ContextDirectory::at("/config");
    assert_eq!(
        directory.path("dev-1.x").unwrap(),
        Path::new("/config/kv/contexts/dev-1.x.toml")
    );
    for name in ["", ".", "..", ".hidden", "a/b", "a b", "ü", &"a".repeat(65)] {
        assert!(directory.path(name).is_err(), "{name}");
    }
}

#[test]
fn a_directory_that_is_not_there_has_no_contexts() {
    let directory = ContextDirectory::at("/nonexistent-kv-config");
    assert_eq!(directory.names().unwrap(), Vec::<String>::new());
    assert_eq!(directory.current().unwrap(), None);
    let error = directory.load("dev").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("there is no context `dev` (contexts: there are none)")
    );
}

#[test]
fn a_context_is_selected_and_found_again() {
    let root = std::env::temp_dir().join(format!("kv-contexts-{}", std::process::id()));
    let directory = ContextDirectory::at(&root);
    std::fs::create_dir_all(root.join("kv/contexts")).unwrap();
    std::fs::write(directory.path("dev").unwrap(), GOOD).unwrap();
    assert!(directory.select("prod").is_err());
    assert_eq!(directory.current().unwrap(), None);
    assert_eq!(directory.select("dev").unwrap().name, "dev");
    assert_eq!(directory.current().unwrap().as_deref(), Some("dev"));
    assert_eq!(directory.names().unwrap(), ["dev"]);
    std::fs::remove_dir_all(root).unwrap();
}
