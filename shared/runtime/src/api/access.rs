//! Who may call a route: decided by the route table, checked in one place, before anything else of a request is read.

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use jiff::Timestamp;

use super::Error;
use super::authentication::{JwtVerifier, Principal, ServiceTokens};

/// What a member of staff may do. The highest role that a token names counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads everything but the bodies of events, and writes nothing.
    Viewer,
    /// Reads, and writes that move money: payments, credits, invoices, accepted differences.
    Finance,
    /// Reads and writes everything.
    Admin,
}

impl Role {
    /// Every role, the one that may do most first.
    pub(super) const ALL: [Role; 3] = [Role::Admin, Role::Finance, Role::Viewer];

    /// As a token's claim `role` or `scope` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Finance => "finance",
            Role::Admin => "admin",
        }
    }
}

/// Who may call a route. Every row of a route table has one: [`Routes::add`](super::router::Routes::add) takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Staff with the role `admin`.
    Admin,
    /// Staff with the role `finance` or higher.
    Finance,
    /// Staff with the role `viewer` or higher.
    Viewer,
    /// Staff with the role `viewer` or higher, and every partner: the handler shows a partner what is its own, by
    /// [`Caller::may_read`].
    ViewerOrPartner,
    /// The application's backend, by a service token.
    Service,
    /// What belongs to one API key prefix: the backend, staff with the role `viewer` or higher, and that partner.
    Partner {
        /// The parameter of the path that is the prefix.
        prefix: &'static str,
    },
    /// Everybody; the handler checks a signature.
    Public,
}

impl Access {
    /// The names of the document's security schemes, any of which will do.
    #[must_use]
    pub fn schemes(self) -> &'static [&'static str] {
        match self {
            Access::Admin => &["admin"],
            Access::Finance => &["finance"],
            Access::Viewer => &["viewer"],
            Access::ViewerOrPartner => &["viewer", "partner"],
            Access::Service => &["service"],
            Access::Partner { .. } => &["service", "viewer", "partner"],
            Access::Public => &[],
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Access::Partner { prefix } => write!(formatter, "partner of {{{prefix}}}"),
            Access::Admin => formatter.write_str("admin"),
            Access::Finance => formatter.write_str("finance"),
            Access::Viewer => formatter.write_str("viewer"),
            Access::ViewerOrPartner => formatter.write_str("viewer or partner"),
            Access::Service => formatter.write_str("service"),
            Access::Public => formatter.write_str("public"),
        }
    }
}

/// Who a request comes from, once its token has been checked. An extractor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A member of staff.
    Staff {
        /// The highest role that the token names.
        role: Role,
        /// The claim `sub`, for the audit log.
        subject: Option<String>,
    },
    /// A partner, by its API key prefix.
    Partner(String),
    /// The application's backend, known by a service token.
    Service,
    /// Nobody that is known: the route is public.
    Anyone,
}

impl Caller {
    /// The name under which the audit log has what this caller does, and to which its idempotency keys belong.
    #[must_use]
    pub fn actor(&self) -> &str {
        match self {
            Caller::Staff { role, subject } => subject
                .as_deref()
                .filter(|name| super::is_plain(name))
                .unwrap_or(role.as_str()),
            Caller::Partner(prefix) => prefix,
            Caller::Service => "service",
            Caller::Anyone => "anyone",
        }
    }

    /// Whether it may read what belongs to this API key prefix; `None` is what belongs to no partner.
    #[must_use]
    pub fn may_read(&self, api_key_prefix: Option<&str>) -> bool {
        match self {
            Caller::Staff { .. } | Caller::Service => true,
            Caller::Partner(own) => api_key_prefix == Some(own),
            Caller::Anyone => false,
        }
    }

    /// The prefix a list must be narrowed to; `None` when everything may be read.
    #[must_use]
    pub fn own_prefix(&self) -> Option<&str> {
        match self {
            Caller::Partner(own) => Some(own),
            Caller::Staff { .. } | Caller::Service | Caller::Anyone => None,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Caller, Error> {
        super::router::extension(parts)
    }
}

/// Checks the tokens that a function takes. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Authenticator {
    shared: Arc<Verifiers>,
}

#[derive(Debug, Default)]
struct Verifiers {
    jwt: Option<JwtVerifier>,
    service_tokens: Option<ServiceTokens>,
}

/// A route asks for a kind of token that its function was not given the means to check.
#[derive(Debug, thiserror::Error)]
#[error("this function takes no {0}")]
struct NotTaken(&'static str);

impl Authenticator {
    /// Of a function whose routes are all public.
    #[must_use]
    pub fn of_nobody() -> Authenticator {
        Authenticator::default()
    }

    /// Of a function that staff and partners call.
    #[must_use]
    pub fn of_people(jwt: JwtVerifier) -> Authenticator {
        Authenticator {
            shared: Arc::new(Verifiers {
                jwt: Some(jwt),
                service_tokens: None,
            }),
        }
    }

    /// Of a function that the application's backend calls, too.
    #[must_use]
    pub fn of_people_and_services(
        jwt: JwtVerifier,
        service_tokens: ServiceTokens,
    ) -> Authenticator {
        Authenticator {
            shared: Arc::new(Verifiers {
                jwt: Some(jwt),
                service_tokens: Some(service_tokens),
            }),
        }
    }

    async fn principal(&self, headers: &HeaderMap, now: Timestamp) -> Result<Principal, Error> {
        let jwt = self.shared.jwt.as_ref();
        let jwt = jwt.ok_or_else(|| Error::Internal(Box::new(NotTaken("JWTs"))))?;
        jwt.authenticate(headers, now).await
    }

    async fn check_service(&self, headers: &HeaderMap, now: Timestamp) -> Result<(), Error> {
        let tokens = self.shared.service_tokens.as_ref();
        let tokens = tokens.ok_or_else(|| Error::Internal(Box::new(NotTaken("service tokens"))))?;
        tokens.check(headers, now).await
    }

    /// Who the bearer is, when it may call a route of this access. `parameter` reads a parameter of the path.
    ///
    /// # Errors
    /// 401 without a token that holds, 403 with one that does not allow this, 503 when it cannot be checked.
    pub async fn authorize(
        &self,
        access: Access,
        headers: &HeaderMap,
        parameter: impl Fn(&str) -> Option<String>,
        now: Timestamp,
    ) -> Result<Caller, Error> {
        match access {
            Access::Public => Ok(Caller::Anyone),
            Access::Service => {
                self.check_service(headers, now).await?;
                Ok(Caller::Service)
            }
            Access::Admin => self.staff(Role::Admin, headers, now).await,
            Access::Finance => self.staff(Role::Finance, headers, now).await,
            Access::Viewer => self.staff(Role::Viewer, headers, now).await,
            Access::ViewerOrPartner => {
                let principal = self.principal(headers, now).await?;
                viewer_or_partner(principal).ok_or(Error::Forbidden {
                    detail: "this needs the role viewer, or a partner's token",
                })
            }
            Access::Partner { prefix } => {
                let prefix = parameter(prefix);
                self.of_prefix(prefix.as_deref(), headers, now).await
            }
        }
    }

    async fn staff(
        &self,
        needed: Role,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Caller, Error> {
        let principal = self.principal(headers, now).await?;
        match principal.role {
            Some(role) if role >= needed => Ok(Caller::Staff {
                role,
                subject: principal.subject,
            }),
            Some(_) | None => Err(Error::Forbidden {
                detail: match needed {
                    Role::Admin => "this needs the role admin",
                    Role::Finance => "this needs the role finance",
                    Role::Viewer => "this needs the role viewer",
                },
            }),
        }
    }

    /// A token that is neither a JWT of ours nor a service token is a 401 that does not say which of the two it was
    /// taken for.
    async fn of_prefix(
        &self,
        prefix: Option<&str>,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Caller, Error> {
        let jwt = match self.principal(headers, now).await {
            Ok(principal) => {
                return viewer_or_partner(principal)
                    .filter(|caller| caller.may_read(prefix))
                    .ok_or(Error::Forbidden {
                        detail: "this needs the partner's own token",
                    });
            }
            Err(error) => error,
        };
        let Err(service) = self.check_service(headers, now).await else {
            return Ok(Caller::Service);
        };
        // A check that could not be made is no refusal.
        Err(if jwt.status().is_server_error() {
            jwt
        } else {
            service
        })
    }
}

fn viewer_or_partner(principal: Principal) -> Option<Caller> {
    match (principal.role, principal.partner) {
        (Some(role), _) => Some(Caller::Staff {
            role,
            subject: principal.subject,
        }),
        (None, Some(prefix)) => Some(Caller::Partner(prefix)),
        (None, None) => None,
    }
}
