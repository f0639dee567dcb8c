-- Goes before every script.

-- Redis turns large numbers into 1e+15 otherwise.
local function decimal(n)
  return string.format('%.0f', n)
end

local function varint(n)
  local out = {}
  while n >= 128 do
    out[#out + 1] = string.char(n % 128 + 128)
    n = math.floor(n / 128)
  end
  out[#out + 1] = string.char(n)
  return table.concat(out)
end

-- Fields of an encoded protobuf message.
local function number(field, n)
  return varint(field * 8) .. varint(n)
end

local function bytes(field, value)
  return varint(field * 8 + 2) .. varint(#value) .. value
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
