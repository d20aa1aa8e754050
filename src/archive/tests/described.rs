//! The description of the format against what is written.

use std::collections::BTreeSet;

use super::*;

/// FORMAT.md names every field that this version writes.
#[tokio::test]
async fn the_description_of_the_format_is_complete() {
    fn fields(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    into.insert(name.clone());
                    fields(value, into);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| fields(value, into)),
            _ => {}
        }
    }
    let whole: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    write_format_2(Arc::clone(&whole)).await;
    let reseeded: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    reseed::write(&reseeded).await;
    let mut names = BTreeSet::new();
    for storage in [whole, reseeded] {
        let objects = crate::storage::list_all(&*storage, "", None).await;
        for object in objects.expect("a listing") {
            let bytes = storage.get(&object.key).await.expect("an object");
            if let Ok(json) = serde_json::from_slice(&bytes) {
                fields(&json, &mut names);
                continue;
            }
            let segment = Segment::open(&bytes).expect("a segment");
            let details = segment.details().expect("lines");
            for json in [
                serde_json::to_value(segment.index()),
                serde_json::to_value(details),
            ] {
                fields(&json.expect("JSON"), &mut names);
            }
        }
    }
    assert!(names.len() > 40, "{names:?}");
    let description = include_str!("../FORMAT.md");
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !description.contains(&format!("`{name}`")))
        .collect();
    assert_eq!(missing, [""; 0]);
}
