//! Envelopes of checkpoints.

use crate::base::coding::Decoder;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::checkpoint::format::Envelope;
use crate::checkpoint::format::PartFamily;
use crate::inspect::manifest::describe_meta;
use crate::inspect::report::Hex;
use crate::inspect::report::Report;
use crate::inspect::report::value;
use crate::version::meta::FileMeta;

/// Describes an envelope: all of it or nothing, since one digest covers it.
pub fn describe(report: &mut Report, bytes: &[u8]) -> Result<()> {
    let (envelope, identity) = Envelope::decode(bytes)?;
    report.line(0, format_args!("checkpoint {}, {} bytes", envelope.checkpoint, bytes.len()));
    report.line(1, format_args!("identity {}", Hex(&identity)));
    let (groups, prefix) = (envelope.max_parallelism, envelope.prefix_bytes);
    report.line(1, format_args!("{groups} key groups, in {prefix} bytes of each key"));
    report.line(1, format_args!("{} user bytes, {}", envelope.user.len(), value(&envelope.user)));
    for (name, bytes) in &envelope.operator_state {
        let (len, bytes) = (bytes.len(), value(bytes));
        report.line(1, format_args!("operator state {name:?}: {len} bytes, {bytes}"));
    }
    let total = envelope.objects.iter().fold(0u64, |sum, object| sum.saturating_add(object.len));
    report.line(1, format_args!("{} objects, {total} bytes", envelope.objects.len()));
    for object in &envelope.objects {
        report.line(2, format_args!("{} {} bytes", object.name, object.len));
    }
    for part in &envelope.parts {
        let (first, last, seqno) = (part.first_group, part.last_group, part.seqno);
        report.line(1, format_args!("key groups {first} to {last}, last sequence number {seqno}"));
        part.families.iter().for_each(|family| describe_family(report, &envelope, family));
    }
    Ok(())
}

fn describe_family(report: &mut Report, envelope: &Envelope, family: &PartFamily) {
    let operator = family.merge_operator.as_deref().unwrap_or("none");
    let text = format_args!("family {:?}, merge operator {operator}", family.name);
    report.line(2, text);
    for table in &family.tables {
        // The envelope was checked: there is such an object.
        if let Some(object) = envelope.objects.get(table.object as usize) {
            report.line(3, format_args!("level {}: {}", table.level, object.name));
        }
        match FileMeta::decode(Decoder::new(&table.meta)) {
            Ok(meta) => describe_meta(report, 4, &meta),
            Err(e) => {
                let text = format!("description of object {}: {e}", table.object);
                report.damaged(4, Error::new(e.kind(), text));
            }
        }
    }
}
