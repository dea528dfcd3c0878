//! `podsecctl image list` and `verify`: what is in an archive, and whether it is whole. Nothing of it is written anywhere.

use super::archive::{self, Limit};
use super::layout::{self, Contents, Image, Judged, Problem};
use super::progress::{Progress, size};
use super::run::Watch;
use super::{Trouble, clean};
use crate::Context;
use crate::cli::OneArchive;
use crate::output::{Output, Style, aside, count};
use serde_json::{Value, json};

fn look(context: &Context, watch: &Watch, arguments: &OneArchive) -> Result<(Contents, Judged), Trouble> {
    let limit = Limit { bytes: arguments.size.max_size, because: super::load::BECAUSE_OF_OPTION };
    let mut progress = Progress::new(&context.output);
    let contents = archive::scan(&arguments.archive, limit, (watch, &mut progress), &mut |_, _| Ok(None))?;
    let judged = layout::judge(&contents);
    Ok((contents, judged))
}

/// An image for programs.
fn object(image: &Image) -> Value {
    json!({
        "name": image.name.to_string(),
        "digest": image.digest.as_str(),
        "architecture": image.architecture.as_str(),
        "variant": image.variant,
        "size": image.size,
    })
}

pub fn list(context: &Context, watch: &Watch, arguments: &OneArchive) -> Result<u8, Trouble> {
    let (_, judged) = look(context, watch, arguments)?;
    let output = &context.output;
    let is_whole = judged.problems.is_empty();
    if output.is_json() {
        let images: Value = judged.images.iter().map(object).collect();
        output.object(&json!({ "images": images, "whole": is_whole }))?;
        return Ok(u8::from(!is_whole));
    }
    output.bytes(table(output, &judged.images).as_bytes())?;
    if !is_whole {
        let path = clean(&arguments.archive.to_string_lossy());
        aside(&format!("podsecctl: {path} is not whole: `podsecctl image verify` says what is wrong"));
    }
    Ok(u8::from(!is_whole))
}

fn table(output: &Output, images: &[Image]) -> String {
    let row = |image: &Image| {
        let variant = image.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
        vec![
            image.name.to_string(),
            format!("{}{variant}", image.architecture),
            size(image.size),
            image.digest.to_string(),
        ]
    };
    output.table(&["IMAGE", "ARCH", "SIZE", "DIGEST"], &images.iter().map(row).collect::<Vec<_>>())
}

pub fn verify(context: &Context, watch: &Watch, arguments: &OneArchive) -> Result<u8, Trouble> {
    let (contents, judged) = look(context, watch, arguments)?;
    let output = &context.output;
    let path = clean(&arguments.archive.to_string_lossy());
    let is_whole = judged.problems.is_empty();
    if output.is_json() {
        let problem = |problem: &Problem| json!({ "subject": problem.subject, "problem": problem.what });
        output.object(&json!({
            "whole": is_whole,
            "architecture": contents.architecture.as_str(),
            "images": judged.images.len(),
            "blobs": contents.blobs.len(),
            "unused": judged.unused,
            "problems": judged.problems.iter().map(problem).collect::<Value>(),
        }))?;
        return Ok(u8::from(!is_whole));
    }
    let mut text = String::new();
    for problem in &judged.problems {
        text += &format!("{}: {}\n", clean(&problem.subject), clean(&problem.what));
    }
    let bytes: u64 = contents.blobs.values().map(|blob| blob.size).sum();
    let verdict =
        if is_whole { output.paint(Style::Good, "whole") } else { output.paint(Style::Bad, "not whole") };
    text += &format!(
        "{path}: {verdict}: {} for {}, {}, {}\n",
        count(judged.images.len() as u64, "image"),
        contents.architecture,
        count(contents.blobs.len() as u64, "blob"),
        size(bytes)
    );
    if judged.unused > 0 {
        text += &format!("{} of no image\n", count(judged.unused as u64, "blob"));
    }
    output.bytes(text.as_bytes())?;
    Ok(u8::from(!is_whole))
}
