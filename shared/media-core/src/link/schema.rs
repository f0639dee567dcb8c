//! The messages in Rust against their description: every field of `proto/plenary/v1/link.proto` is written by name as the
//! description says and read back by the derived code, and the other way round by number.

use std::collections::BTreeSet;

use prost_types::{DescriptorProto, FileDescriptorProto, field_descriptor_proto::Type};

/// The fields of the messages as they stand in the code: name, number, whether it may be absent or repeated, type.
fn in_code() -> BTreeSet<(String, String)> {
    let mut fields = BTreeSet::new();
    let mut message = String::new();
    let mut attribute: Option<String> = None;
    for line in include_str!("message.rs").lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("pub(crate) struct ") {
            message = rest.split([' ', '{']).next().unwrap_or_default().to_owned();
            fields.insert((message.clone(), String::new()));
        } else if let Some(rest) = line.strip_prefix("#[prost(") {
            attribute = rest.strip_suffix(")]").map(str::to_owned);
        } else if let (Some(rest), Some(words)) = (line.strip_prefix("pub(crate) "), attribute.take()) {
            let (name, kind) = rest.split_once(": ").expect("a field has a type");
            let words = words.replace("tag = ", "").replace('"', "").replace("bytes = vec", "bytes");
            let of = kind.trim_end_matches([',', '>']).rsplit('<').next().unwrap_or_default();
            let words = if words.starts_with("message") { words.replacen("message", of, 1) } else { words };
            fields.insert((message.clone(), format!("{name}: {words}")));
        }
    }
    fields
}

fn in_description(file: &FileDescriptorProto) -> BTreeSet<(String, String)> {
    let mut fields = BTreeSet::new();
    for message in &file.message_type {
        let DescriptorProto { name: Some(of), field, .. } = message else { panic!("a message without a name") };
        fields.insert((of.clone(), String::new()));
        for field in field {
            let mut words = vec![type_of(field)];
            let is_message = field.r#type() == Type::Message;
            match field.label() {
                prost_types::field_descriptor_proto::Label::Repeated => words.push("repeated".to_owned()),
                _ if field.proto3_optional() || is_message => words.push("optional".to_owned()),
                _ => {}
            }
            words.push(field.number().to_string());
            fields.insert((of.clone(), format!("{}: {}", field.name(), words.join(", "))));
        }
    }
    fields
}

fn type_of(field: &prost_types::FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Bool => "bool",
        Type::Uint32 => "uint32",
        Type::Uint64 => "uint64",
        Type::Fixed32 => "fixed32",
        Type::Fixed64 => "fixed64",
        Type::Message => field.type_name().rsplit('.').next().unwrap_or_default(),
        other => panic!("{other:?} is not used"),
    }
    .to_owned()
}

#[test]
fn the_code_has_the_messages_and_fields_of_the_description() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    let set = protox::compile(["plenary/v1/link.proto"], [folder]).expect("the description compiles");
    let file = set.file.iter().find(|file| file.name() == "plenary/v1/link.proto").expect("it is in the set");
    let (described, coded) = (in_description(file), in_code());
    assert!(described.len() > 60, "{described:?}");
    let missing: Vec<_> = described.difference(&coded).collect();
    let foreign: Vec<_> = coded.difference(&described).collect();
    assert!(missing.is_empty() && foreign.is_empty(), "only described: {missing:?}; only in code: {foreign:?}");
}

#[test]
fn fields_of_newer_versions_are_skipped() {
    use prost::Message;
    let known = super::KeyRequest { stream: 7 };
    let mut bytes = known.encode_to_vec();
    // Field 900, a string.
    prost::encoding::string::encode(900, &"later".to_owned(), &mut bytes);
    assert_eq!(super::KeyRequest::decode(bytes.as_slice()), Ok(known));
}
