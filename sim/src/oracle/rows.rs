//! Values of Rust as the columns of a table.

use crate::sql::table::{Cell, Cells};

/// What can stand in the key or value columns of a table: `&str`, `String`, `Vec<u8>`, integers, and tuples of up to four
/// of these.
pub trait IntoCells {
    /// As columns.
    fn cells(self) -> Cells;
}

/// One column.
trait IntoCell {
    fn cell(self) -> Cell;
}

macro_rules! one_column {
    ($($type:ty: $value:ident => $cell:expr;)+) => {$(
        impl IntoCell for $type {
            fn cell(self) -> Cell {
                let $value = self;
                $cell
            }
        }

        impl IntoCells for $type {
            fn cells(self) -> Cells {
                Box::new([self.cell()])
            }
        }
    )+};
}

one_column! {
    &str: text => Cell::Text(text.to_owned());
    String: text => Cell::Text(text);
    Vec<u8>: bytes => Cell::Bytes(bytes);
    i64: number => Cell::BigInt(number);
    i32: number => Cell::BigInt(number.into());
    u32: number => Cell::BigInt(number.into());
    u8: number => Cell::BigInt(number.into());
}

macro_rules! columns {
    ($($name:ident $index:tt),+) => {
        #[allow(private_bounds, reason = "what a column holds is not for users to extend")]
        impl<$($name: IntoCell),+> IntoCells for ($($name,)+) {
            fn cells(self) -> Cells {
                Box::new([$(self.$index.cell()),+])
            }
        }
    };
}

columns!(A 0);
columns!(A 0, B 1);
columns!(A 0, B 1, C 2);
columns!(A 0, B 1, C 2, D 3);
