//! A zoo of schema objects and values: whatever goes in must come out, object by object and bit by
//! bit.

mod charsets;
mod compare;
mod events;
mod interrupted;
mod large;
mod load;
mod objects;
mod places;
mod values;
