//! What the fuzz targets of lists have in common.

use bliss_core::schema::{Feature, FeatureKind};
use bliss_service::decode::Limits;
use bliss_service::lists::{Column, HostBits, ListDecoder, ListFormat, overlay};

/// Reads `bytes`, and lays what is read over itself.
pub fn any(format: ListFormat, bytes: &[u8]) {
    let column = |index, kind, field: &str| Column {
        index,
        feature: Feature { name: "x".to_owned(), kind, default: 0.0, min: None, max: None },
        field: field.to_owned(),
        rules: None,
    };
    let columns = match format {
        ListFormat::Mmdb => vec![
            column(0, FeatureKind::Category, "country.iso_code"),
            column(1, FeatureKind::F32, "autonomous_system_number"),
        ],
        ListFormat::Location => {
            vec![column(0, FeatureKind::Category, "as_name"), column(1, FeatureKind::F32, "asn")]
        }
        ListFormat::Text | ListFormat::Json => vec![column(0, FeatureKind::F32, "")],
    };
    let limits = Limits {
        max_bytes: 1 << 20,
        max_line_bytes: 1 << 12,
        max_decoded_bytes: 1 << 20,
        max_rows: None,
        min_rows: 0,
    };
    let mut decoder = ListDecoder::new(format, columns, limits);
    if let Ok(layer) = decoder.decode("list", bytes) {
        overlay(&[&layer, &layer], &[0.0, 0.0], 7).expect("what was read can be published");
    }
    decoder.host_bits = HostBits::Mask;
    decoder.members = vec!["hooks".to_owned()];
    let _ = decoder.decode("list", bytes);
}
