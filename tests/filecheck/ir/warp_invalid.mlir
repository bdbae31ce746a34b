// RUN: forgec opt %s --split-input-file --verify-diagnostics

// expected-error@+1 {{a scheduled kernel has at least one group}}
warp.kernel @alone(%x: !tile.block<tensor<8xf32>>) grid [1] {
  tile.return
}

// -----

warp.kernel @twice(%x: !tile.block<tensor<8xf32>>) grid [1] {
  warp.group "load" warps 1 registers 24 {
  }
  // expected-error@+1 {{the kernel has two groups named 'load'}}
  warp.group "load" warps 1 registers 24 {
  }
  tile.return
}

// -----

warp.kernel @nobody(%x: !tile.block<tensor<8xf32>>) grid [1] {
  // expected-error@+1 {{a group has at least one warp, and its threads at least one register}}
  warp.group "load" warps 0 registers 24 {
  }
  tile.return
}

// -----

warp.kernel @empty(%x: !tile.block<tensor<8xf32>>) grid [1] {
  // expected-error@+3 {{a channel has at least one slot and one reader}}
  // expected-error@+2 {{one group fills a channel, found none}}
  // expected-error@+1 {{nothing reads the channel}}
  %r = aref.create depth 0 in "shared" : !aref.ring<tensor<8xf32>>
  warp.group "load" warps 1 registers 24 {
  }
  tile.return
}

// -----

warp.kernel @memory(%x: !tile.block<tensor<8xf32>>) grid [1] {
  // expected-error@+3 {{slots are in shared or in tensor memory, not in register}}
  // expected-error@+2 {{one group fills a channel, found none}}
  // expected-error@+1 {{nothing reads the channel}}
  %r = aref.create depth 1 in "register" : !aref.ring<tensor<8xf32>>
  warp.group "load" warps 1 registers 24 {
  }
  tile.return
}

// -----

warp.kernel @unread(%x: !tile.block<tensor<8xf32>>) grid [1] {
  %z = tile.index 0() : () -> index
  // expected-error@+1 {{nothing reads the channel}}
  %r = aref.create depth 1 in "shared" : !aref.ring<tensor<8xf32>>
  warp.group "load" warps 1 registers 24 {
    %v, %t = warp.async_load %x[%z] : !tile.block<tensor<8xf32>> -> tensor<8xf32>
    aref.put %r[%z], %v after %t : !aref.ring<tensor<8xf32>>
  }
  tile.return
}

// -----

warp.kernel @unfilled(%x: !tile.block<tensor<8xf32>>) grid [1] {
  %z = tile.index 0() : () -> index
  // expected-error@+1 {{one group fills a channel, found none}}
  %r = aref.create depth 1 in "shared" : !aref.ring<tensor<8xf32>>
  warp.group "store" warps 1 registers 24 {
    %v = aref.get %r[%z] : !aref.ring<tensor<8xf32>>
    aref.consumed %r[%z] : !aref.ring<tensor<8xf32>>
  }
  tile.return
}

// -----

warp.kernel @unfreed(%x: !tile.block<tensor<8xf32>>) grid [1] {
  %z = tile.index 0() : () -> index
  // expected-error@+1 {{group 'store' reads the channel, and never frees what it read}}
  %r = aref.create depth 1 in "shared" : !aref.ring<tensor<8xf32>>
  warp.group "load" warps 1 registers 24 {
    %v = tile.load %x[%z] : !tile.block<tensor<8xf32>> -> tensor<8xf32>
    aref.put %r[%z], %v : !aref.ring<tensor<8xf32>>
  }
  warp.group "store" warps 1 registers 24 {
    %v = aref.get %r[%z] : !aref.ring<tensor<8xf32>>
  }
  tile.return
}

// -----

warp.kernel @outside(%x: !tile.block<tensor<8xf32>>) grid [1] {
  %z = tile.index 0() : () -> index
  // expected-error@+1 {{it stands outside of the kernel's groups}}
  %v, %t = warp.async_load %x[%z] : !tile.block<tensor<8xf32>> -> tensor<8xf32>
  warp.group "load" warps 1 registers 24 {
  }
  tile.return
}

// -----

warp.kernel @nested(%x: !tile.block<tensor<8xf32>>) grid [1] {
  warp.group "load" warps 1 registers 24 {
    // expected-error@+1 {{channels are made outside of groups, which share them}}
    %r = aref.create depth 1 in "shared" : !aref.ring<tensor<8xf32>>
  }
  tile.return
}

// -----

tile.kernel @unscheduled(%x: !tile.block<tensor<8xf32>>) grid [1] {
  // expected-error@+1 {{stands in a kernel, which holds ops of tile, arith, math, scf}}
  %t = warp.done
  tile.return
}

// -----

warp.kernel @shapes(%x: !tile.block<tensor<8x4xf32>>) grid [1] {
  %z = tile.index 0() : () -> index
  warp.group "mma" warps 4 registers 64 {
    %a = tile.load %x[%z, %z] : !tile.block<tensor<8x4xf32>> -> tensor<8x4xf32>
    // expected-error@+1 {{warp.mma multiplies [m, k] by [k, n] into [m, n]}}
    %m, %t = warp.mma %a, %a into %a : tensor<8x4xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  }
  tile.return
}
