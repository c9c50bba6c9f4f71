//! Keys and values of two to four parts: one after the other, in their columns as in their canonical bytes.

use std::{hash::Hasher, slice};

use tine_state::{Column, ColumnType};

use super::{Columns, Lends, Unfit};

macro_rules! tuple_of_columns {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Lends),+> Lends for ($($name,)+) {
            type At<'b> = ($($name::At<'b>,)+);
        }

        impl<$($name: Columns),+> Columns for ($($name,)+) {
            type Lent = ($($name::Lent,)+);
            type Build = ($($name::Build,)+);

            fn build(rows: usize) -> Self::Build {
                ($($name::build(rows),)+)
            }

            fn kinds(out: &mut Vec<ColumnType>) {
                $($name::kinds(out);)+
            }

            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$index.encode(out);)+
            }

            fn feed<HH: Hasher>(&self, hasher: &mut HH) {
                $(self.$index.feed(hasher);)+
            }

            fn size(&self) -> usize {
                0 $(+ self.$index.size())+
            }

            fn check(&self) -> Result<(), Unfit> {
                $(self.$index.check()?;)+
                Ok(())
            }

            fn lend(&self) -> <Self::Lent as Lends>::At<'_> {
                ($(self.$index.lend(),)+)
            }

            fn push(self, build: &mut Self::Build) {
                $(self.$index.push(&mut build.$index);)+
            }

            fn finish(build: Self::Build, out: &mut Vec<Column>) {
                $($name::finish(build.$index, out);)+
            }

            fn read(columns: &mut slice::Iter<'_, Column>, row: usize) -> Option<Self> {
                Some(($($name::read(columns, row)?,)+))
            }
        }
    };
}

tuple_of_columns!(A 0, B 1);
tuple_of_columns!(A 0, B 1, C 2);
tuple_of_columns!(A 0, B 1, C 2, D 3);
