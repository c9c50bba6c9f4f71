//! SQLSTATEs: what the simulator makes of each that it answers with is what the connector makes of the same one from a real
//! Postgres, which raises it in the middle of a transaction or at its `COMMIT`.

use tine_core::id::TxId;
use tine_sim::SqlState;
use tine_state::Statement;
use tine_tests::services::unique;

use super::{server::Server, words};
use crate::agree::RUNTIME;

#[test]
fn sqlstates_mean_to_the_simulator_what_they_mean_to_the_connector() {
    RUNTIME.block_on(async {
        let Some(mut server) = Server::postgres().await else { return };
        let group = words::group(&unique("codes"));
        server.database().create(&group).await.unwrap();
        let row = words::transaction(TxId(1), 0, tine_core::id::Attempt::NONE);
        for state in SqlState::ALL {
            for at_commit in [false, true] {
                server.raise(state.code(), at_commit).await.unwrap();
                let mut session = server.database().session(&group).await.unwrap();
                let what = format!("{state:?}, at COMMIT: {at_commit}");
                session.execute(&Statement::Begin(None)).await.expect(&what);
                let written = session.execute(&Statement::WritePlan(row.clone())).await;
                let answer = match at_commit {
                    true => {
                        written.expect(&what);
                        session.execute(&Statement::Commit).await
                    }
                    false => written,
                };
                let failure = answer.expect_err(&what);
                assert!(failure.message.contains(state.code()), "{what}: {failure}");
                assert_eq!(state.kind(at_commit), failure.kind, "{what}: {failure}");
            }
        }
    });
}
