// RUN: forgec opt %s --split-input-file --verify-diagnostics

func.func @shapes(%x: tensor<4x8xf32>, %y: tensor<3xf32>) {
  // expected-error@+1 {{extents 8 and 3 do not broadcast}}
  %0 = forge.add %x, %y : (tensor<4x8xf32>, tensor<3xf32>) -> tensor<4x8xf32>
  func.return
}

// -----

func.func @result(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{yields f32[4, 1], but the result has type f32[4]}}
  %0 = forge.sum %x over [1] keepdim : (tensor<4x8xf32>) -> tensor<4xf32>
  func.return
}

// -----

func.func @symbols(%x: tensor<?x8xf32, #forge.tensor<[s0]>>, %y: tensor<?x8xf32, #forge.tensor<[s1]>>) {
  // expected-error@+1 {{extents s0 and s1 do not broadcast}}
  %0 = forge.add %x, %y : (tensor<?x8xf32, #forge.tensor<[s0]>>, tensor<?x8xf32, #forge.tensor<[s1]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  func.return
}

// -----

func.func @encoding(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{says something that goes without saying}}
  %0 = forge.neg %x : (tensor<4x8xf32>) -> tensor<4x8xf32, #forge.tensor<[], strides = [8, 1]>>
  func.return
}

// -----

func.func @state(%s: !forge.state<tensor<4xf32>>, %x: tensor<4xf32>) -> !forge.state<tensor<4xf32>> {
  // expected-error@+1 {{a version of state is consumed 2 times}}
  %a = forge.state_write %s, %x : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>>
  func.return %s : !forge.state<tensor<4xf32>>
}
