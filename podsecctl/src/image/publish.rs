//! `podsecctl image push`

use super::registry::{Reference, SigstoreKey, Tool, Version, local};
use super::run::Watch;
use super::sign::{self, Signer};
use super::{Trouble, usage};
use crate::Context;
use crate::cli::PushImage;
use crate::failure::Failure;
use crate::input;
use crate::output::{Output, Style, clean};
use podsec_policy::trust::Digest;
use podsec_policy::user::Fingerprint;
use serde_json::json;

pub fn run(context: &Context, watch: &Watch, arguments: &PushImage) -> Result<u8, Trouble> {
    let PushImage { image, destination, all, sign, sigstore, how } = arguments;
    let (source, to) = (local(image)?, Reference::new(destination)?);
    if matches!(to.version, Version::Digest(_)) {
        return Err(usage(format!("{to}: an image is pushed to a tag; its digest follows from what it is")));
    }
    sign::check(sign.is_some(), how.passphrase_fd)?;
    let output = &context.output;
    if let Some(file) = sigstore {
        let passphrase = how.passphrase_fd.map(input::passphrase_from).transpose()?;
        if how.dry_run {
            return Ok(say(output, &source, &to, None)?);
        }
        let tool = Tool::new(watch, how.registry.tls_verify)?;
        let key = SigstoreKey { file, passphrase: passphrase.as_ref() };
        let digest = tool.push(&source, &to, *all, Some(key), output)?;
        return Ok(print(output, &to, &digest, Some("its signature is in the registry beside it"))?);
    }
    let Some(key) = sign else {
        if how.dry_run {
            return Ok(say(output, &source, &to, None)?);
        }
        let digest = Tool::new(watch, how.registry.tls_verify)?.push(&source, &to, *all, None, output)?;
        return Ok(print(output, &to, &digest, None)?);
    };
    let signer = Signer::new(context, watch, key.as_ref(), how.passphrase_fd, how.registry.tls_verify)?;
    if how.dry_run {
        return Ok(say(output, &source, &to, Some(signer.key()))?);
    }
    let digest = signer.tool().push(&source, &to, *all, None, output)?;
    let signed = signer.sign(&to, Some(&digest)).map_err(|trouble| unsigned(&to, trouble))?;
    sign::print(output, "pushed", &to, signer.key(), &signed)?;
    Ok(0)
}

/// It is there, and does not run: who pushed it should know both.
fn unsigned(to: &Reference, trouble: Trouble) -> Trouble {
    let said = format!("{to} was pushed and is not signed; try `podsecctl image sign {to}`");
    crate::output::aside(&format!("podsecctl: {said}"));
    trouble
}

fn say(output: &Output, source: &str, to: &Reference, key: Option<&Fingerprint>) -> Result<u8, Failure> {
    if output.is_json() {
        let key = key.map(Fingerprint::as_str);
        return output.object(&json!({ "source": source, "image": to.to_string(), "key": key }));
    }
    let key = key.map(|key| format!(" and sign it with key {key}")).unwrap_or_default();
    output.bytes(format!("would push {} to {to}{key}\n", clean(source)).as_bytes())
}

/// Of what was pushed without podsecd.
fn print(output: &Output, to: &Reference, digest: &Digest, signed: Option<&str>) -> Result<u8, Failure> {
    if output.is_json() {
        let kind = signed.map(|_| "sigstore");
        return output.object(&json!({ "image": to.to_string(), "digest": digest.as_str(), "signed": kind }));
    }
    let more = match signed {
        Some(text) => text.to_owned(),
        None => {
            let warning = output.paint(Style::Warn, "warning:");
            format!(
                "{warning} it is not signed, and runs on no host that demands it: podsecctl image sign {to}"
            )
        }
    };
    output.bytes(format!("pushed {to}\n  {digest}\n  {more}\n").as_bytes())
}
