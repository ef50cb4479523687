mod contract;
mod faults;
mod model;
