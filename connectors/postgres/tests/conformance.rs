//! What every state database must do, on a real server.

mod server;

use std::sync::Arc;

use tine_postgres::Postgres;
use tine_state::{Database, conformance};

struct Subject {
    database: Postgres,
    fresh: server::Fresh,
}

#[async_trait::async_trait]
impl conformance::Subject for Subject {
    fn database(&self) -> Arc<dyn Database> {
        Arc::new(self.database.clone())
    }

    async fn sql(&self, text: &str) -> Result<(), String> {
        server::execute(&mut self.fresh.connect().await, text).await.map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn postgres_conforms() {
    let Some(fresh) = server::Fresh::new().await else { return };
    let subject = Subject { database: fresh.postgres(), fresh };
    match conformance::check(&subject).await {
        Ok(cases) => println!("{cases} cases"),
        Err(broken) => panic!("{broken}"),
    }
    subject.fresh.drop_database().await;
}
