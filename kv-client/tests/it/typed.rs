//! Collections: typed keys and values.

use std::collections::{BTreeMap, BTreeSet};

use kv_client::{Collection, Latest, Union};

use crate::cluster::Cluster;

#[test]
fn typed_values_survive_in_both_codecs() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let postcard: Collection<u64, Vec<String>> = client.collection("default").unwrap();
    let json = client
        .collection::<String, BTreeMap<String, u32>>("default")
        .unwrap()
        .json();
    let row = vec!["a".to_owned(), "b".to_owned()];
    let object = BTreeMap::from([("x".to_owned(), 1)]);
    cluster.world.run(async {
        postcard.put(&7, &row).unwrap().await.unwrap();
        assert_eq!(postcard.value(&7).await.unwrap(), Some(row.clone()));
        assert_eq!(postcard.value(&8).await.unwrap(), None);
        json.put(&"j".to_owned(), &object).unwrap().await.unwrap();
        assert_eq!(
            json.value(&"j".to_owned()).await.unwrap(),
            Some(object.clone())
        );
        postcard.delete(&7).await.unwrap();
        assert_eq!(postcard.value(&7).await.unwrap(), None);
    });
    assert_eq!(cluster.values("j"), [r#"{"x":1}"#]);
}

#[test]
fn updates_resolve_then_change() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let sets = client
        .collection::<String, BTreeSet<String>>("default")
        .unwrap()
        .json();
    let key = "cart".to_owned();
    cluster.store("cart", &[Some(r#"["milk"]"#), Some(r#"["bread"]"#)]);
    cluster.world.run(async {
        let error = sets.update(&key, |set| set).await.unwrap_err();
        assert_eq!(
            error.code(),
            "conflict",
            "without a resolver nothing is decided"
        );
        let sets = sets.clone().resolver(Union);
        let add = |set: Option<BTreeSet<String>>| {
            let mut set = set.unwrap_or_default();
            set.insert("eggs".to_owned());
            Some(set)
        };
        let written = sets.update(&key, add).await.unwrap().unwrap();
        assert_eq!(
            written.into_iter().collect::<Vec<_>>(),
            ["bread", "eggs", "milk"]
        );
    });
    assert_eq!(cluster.values("cart"), [r#"["bread","eggs","milk"]"#]);
    let sets = sets.resolver(Latest);
    cluster.world.run(async {
        assert_eq!(sets.update(&key, |_| None).await.unwrap(), None);
        assert_eq!(
            sets.update(&"absent".to_owned(), |_| None).await.unwrap(),
            None
        );
    });
    assert!(cluster.values("cart").is_empty());
}

#[test]
fn values_of_another_type_are_an_error_with_its_name() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.store("k", &[Some("no json")]);
    let numbers = client.collection::<String, u32>("default").unwrap().json();
    let error = cluster
        .world
        .run(numbers.value(&"k".to_owned()))
        .unwrap_err();
    assert_eq!(error.code(), "codec");
    assert!(
        error.to_string().contains("cannot decode the value"),
        "{error}"
    );
}

#[test]
fn collections_are_scanned_with_their_types() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let rows = client.collection::<(u32, u64), String>("default").unwrap();
    cluster.world.run(async {
        for number in 0..40 {
            rows.put(&(number % 2, number.into()), &number.to_string())
                .unwrap()
                .await
                .unwrap();
        }
        let mut listed = Vec::new();
        let mut scan = rows.scan();
        while let Some(row) = scan.next().await {
            let (key, read) = row.unwrap();
            assert_eq!(read.one().unwrap(), Some(key.1.to_string()));
            listed.push(key);
        }
        assert_eq!(listed.len(), 40);
        assert!(
            listed.chunks(20).all(|chunk| chunk.is_sorted()),
            "rows come in their order"
        );
    });
}
