//! The arguments of an exported function, read once and all of them.

use skill_core::{Code, Fault};

use super::call::Call;
use super::error::{current_function, raise};
use super::value::Field;

impl Call {
    /// All arguments. Raises XX001 when as many are not declared, or one with another type, or one is NULL and its type is not
    /// an `Option`.
    pub fn arguments<'c, T: FromArguments<'c>>(&'c self) -> T {
        let declared = self.argument_count();
        if declared != T::COUNT {
            let message =
                format!("function {}: {declared} arguments are declared, not {}", current_function(), T::COUNT);
            raise(Fault::new(Code::DataCorrupted, message));
        }
        T::from_arguments(self)
    }
}

/// What the arguments of a function are read into: a value, a tuple, or a struct of [`arguments!`](crate::arguments).
pub trait FromArguments<'c>: Sized {
    /// How many the call has.
    const COUNT: usize;

    /// Reads them.
    fn from_arguments(call: &'c Call) -> Self;
}

/// The only argument.
impl<'c, T: Field<'c>> FromArguments<'c> for T {
    const COUNT: usize = 1;

    fn from_arguments(call: &'c Call) -> Self {
        call.argument(0)
    }
}

macro_rules! tuples {
    ($($count:literal $($name:ident)+;)*) => {$(
        impl<'c, $($name: Field<'c>),+> FromArguments<'c> for ($($name,)+) {
            const COUNT: usize = $count;

            fn from_arguments(call: &'c Call) -> Self {
                let mut n = 0;
                let mut next = || { n += 1; n - 1 };
                ($(call.argument::<$name>(next()),)+)
            }
        }
    )*};
}

tuples! {
    2 A B;
    3 A B C;
    4 A B C D;
    5 A B C D E;
    6 A B C D E F;
    7 A B C D E F G;
    8 A B C D E F G H;
    9 A B C D E F G H I;
    10 A B C D E F G H I J;
    11 A B C D E F G H I J K;
    12 A B C D E F G H I J K L;
    13 A B C D E F G H I J K L M;
    14 A B C D E F G H I J K L M N;
}

/// Arguments that several functions share, and one more.
pub struct And<T, U>(pub T, pub U);

impl<'c, T: FromArguments<'c>, U: Field<'c>> FromArguments<'c> for And<T, U> {
    const COUNT: usize = T::COUNT + 1;

    fn from_arguments(call: &'c Call) -> Self {
        And(T::from_arguments(call), call.argument(T::COUNT))
    }
}

/// A struct with the arguments of a function, in their order.
///
/// ```no_run
/// # use skill_pg::{Answer, Call, arguments};
/// arguments! {
///     struct Greeting<'c> { name: Option<&'c str>, times: i32 }
/// }
/// fn greet(call: &Call) -> Answer {
///     let Greeting { name, times } = call.arguments();
///     Ok(call.answer(name.unwrap_or("world").repeat(times as usize)))
/// }
/// ```
#[macro_export]
macro_rules! arguments {
    ($(#[$meta:meta])* $vis:vis struct $name:ident<$lifetime:lifetime> {
        $($field:ident: $type:ty),+ $(,)?
    }) => {
        $(#[$meta])*
        $vis struct $name<$lifetime> {
            $($field: $type,)+
        }

        impl<$lifetime> $crate::FromArguments<$lifetime> for $name<$lifetime> {
            const COUNT: usize = <($($type,)+) as $crate::FromArguments>::COUNT;

            fn from_arguments(call: &$lifetime $crate::Call) -> Self {
                let ($($field,)+): ($($type,)+) = $crate::FromArguments::from_arguments(call);
                $name { $($field,)+ }
            }
        }
    };
}
