// RUN: forgec opt %s | filecheck %s
// RUN: forgec opt %s | forgec opt | filecheck %s

// Literals are exact: what has no short decimal form is written as bytes.

%0 = forge.constant dense<[1.5, 0.1]> : tensor<2xf32>
%1 = forge.constant dense<"0x000080FF0000803F"> : tensor<2xf32>
%2 = forge.constant dense<[true, false]> : tensor<2xi1>
%3 = forge.constant dense<0> : tensor<2x2xi64>
%4 = forge.full -inf : tensor<2xf32>
%5 = forge.full 1.0e-30 : tensor<2xf32>

// CHECK:      %0 = forge.constant dense<[1.500000e+00, 1.000000e-01]> : tensor<2xf32>
// CHECK-NEXT: %1 = forge.constant dense<"0x000080ff0000803f"> : tensor<2xf32>
// CHECK-NEXT: %2 = forge.constant dense<[true, false]> : tensor<2xi1>
// CHECK-NEXT: %3 = forge.constant dense<0> : tensor<2x2xi64>
// CHECK-NEXT: %4 = forge.full -inf : tensor<2xf32>
// CHECK-NEXT: %5 = forge.full 1.0e-30 : tensor<2xf32>
