//! What an error of the client says about the request: refused, unknown, or that the session is over.

use tine_core::failure::Failure;
use zookeeper_client::{Error, MultiWriteError};

/// A request that did not come back with a result.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The server answered no: nothing was written.
    Refused(Error),
    /// The reply was lost, or there was none: it may have been written.
    Unknown(Error),
    /// Leadership is gone, and with it the session; a write that was under way may have been done.
    Lost(Failure),
    /// The session is over (seen before the lease noticed).
    Over(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        match error {
            Error::NoNode
            | Error::NodeExists
            | Error::BadVersion
            | Error::NotEmpty
            | Error::NoAuth
            | Error::NoChildrenForEphemerals
            | Error::InvalidAcl
            | Error::QuotaExceeded
            | Error::Throttled
            | Error::NotReadOnly
            | Error::Unimplemented
            | Error::BadArguments(_)
            | Error::RuntimeInconsistent => Trouble::Refused(error),
            Error::SessionExpired | Error::ClientClosed | Error::AuthFailed | Error::SessionMoved => {
                Trouble::Over(error)
            }
            // `ConnectionLoss`, `Timeout`, and `Custom(io …)`, which is what a reset connection answers; and whatever
            // comes later: not knowing is always safe.
            _ => Trouble::Unknown(error),
        }
    }
}

impl From<MultiWriteError> for Trouble {
    fn from(error: MultiWriteError) -> Trouble {
        Error::from(error).into()
    }
}

/// A refusal that trying again cannot change, or one that it may.
pub(crate) fn judge(path: &str, error: &Error) -> Failure {
    match error {
        Error::NoAuth | Error::InvalidAcl => Failure::fatal(format!(
            "zookeeper node {path}: {error}: this user needs the rights to create, read, write and delete there (digest_auth)"
        )),
        Error::QuotaExceeded => Failure::fatal(format!("zookeeper node {path}: {error}: raise the quota")),
        Error::Throttled | Error::NotReadOnly => Failure::transient(format!("zookeeper node {path}: {error}")),
        _ => Failure::fatal(format!("zookeeper node {path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z1_a_lost_reply_is_unknown_and_a_refusal_is_not() {
        for lost in [Error::ConnectionLoss, Error::Timeout, Error::UnexpectedErrorCode(-1)] {
            assert!(matches!(Trouble::from(lost), Trouble::Unknown(_)));
        }
        assert!(matches!(Trouble::from(Error::BadVersion), Trouble::Refused(_)));
        assert!(matches!(Trouble::from(Error::SessionExpired), Trouble::Over(_)));
    }
}
