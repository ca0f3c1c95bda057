//! Who may read a partner's figures: the application's backend, an admin, and the partner itself.

use jiff::Timestamp;
use lambda_http::Request;
use runtime::api::Error;

use crate::App;

/// A service token, an admin's JWT or the partner's own; another partner's is a 403. What is neither is a 401 that
/// does not say which of the two it was taken for.
pub(crate) async fn check_reader(
    app: &App,
    request: &Request,
    api_key_prefix: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let headers = request.headers();
    let jwt = match app.jwt.authenticate(headers, now).await {
        Ok(principal) if principal.role == Some(runtime::api::access::Role::Admin) => return Ok(()),
        Ok(principal) if principal.partner.as_deref() == Some(api_key_prefix) => return Ok(()),
        Ok(_) => {
            return Err(Error::Forbidden {
                detail: "this needs the partner's own token",
            });
        }
        Err(error) => error,
    };
    let Err(service) = app.service_tokens.check(headers, now).await else {
        return Ok(());
    };
    // A check that could not be made is no refusal.
    Err(if jwt.status().is_server_error() {
        jwt
    } else {
        service
    })
}
