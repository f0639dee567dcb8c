-- Makes the room or updates its settings. `given` says with four digits which of them the caller named.
local sid, view, created, given, metadata, empty, departure, cap, auto = unpack(ARGV, 4)
if not exists() then
  make(sid, view, created, metadata, empty, departure, cap, auto)
  tell(number(5, STARTED))
else
  local asked = { 'metadata', metadata, 'empty', empty, 'departure', departure, 'cap', cap }
  local changed = false
  for at = 1, 4 do
    local field, value = asked[2 * at - 1], asked[2 * at]
    if string.sub(given, at, at) == '1' and redis.call('HGET', X, field) ~= value then
      redis.call('HSET', X, field, value)
      changed = true
    end
  end
  if changed then publish(bytes(5, info())) end
end
live()
return { 'ok', info() }
