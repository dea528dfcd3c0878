//! `podsecctl whoami`

use crate::Context;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::clean;
use crate::users::Users;
use podsec_proto::v1;

pub fn run(context: &Context) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let who = daemon.ask(daemon.identity().who_am_i(v1::WhoAmIRequest {}))?;
    if context.output.is_json() {
        return context.output.object(&serde_json::json!({
            "uid": who.uid,
            "login_uid": who.login_uid,
            "roles": who.roles,
            "operations": who.operations,
            "version": who.version,
        }));
    }
    let mut users = Users::default();
    let short = |operation: &String| clean(operation.strip_prefix("podsec.v1.").unwrap_or(operation));
    let facts = [
        ("user", users.name_and_number(who.uid)),
        ("logged in as", who.login_uid.map(|uid| users.name_and_number(uid)).unwrap_or_default()),
        ("roles", who.roles.iter().map(|role| clean(role)).collect::<Vec<_>>().join(", ")),
        ("may ask", who.operations.iter().map(short).collect::<Vec<_>>().join("\n")),
        ("podsecd", clean(&who.version)),
    ];
    context.output.bytes(context.output.facts(&facts).as_bytes())
}
