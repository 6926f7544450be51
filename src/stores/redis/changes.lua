-- The changes of a topic after a version, up to a number of them or of bytes: each key with its row, or with the eight
-- bytes of the version of its delete. Before them: 1 if there may be more or else 0 (alone: 2 if the table is not
-- whole, 3 if the changes are unknown), then the table's version, incarnation and tip, the server's run, and, if there
-- may be more, the eight bytes of the version up to which nothing is missing. Rows are read one at a time, since only
-- reading a row shows its length. The bytes of rows that are read only to learn that they were written again also end a
-- page, which may then be empty.
local rows, about, deletes = unpack(KEYS)
local topic_bytes, since, limit, room = unpack(ARGV)
local call, sub, pack, unpack_bytes = redis.call, string.sub, struct.pack, struct.unpack
local version, incarnation, tip, deleted, exists =
    unpack(call('HMGET', about, 'version', 'incarnation', 'tip', 'deleted', 'exists'))
if call('HEXISTS', rows, '\255') ~= (exists and 1 or 0) then
    return {2}
end
since, limit, room = unpack_bytes('>I8', since), tonumber(limit), tonumber(room)
local last, forgotten, id, first, after_last = 0, 0, '', 0, 0
local standing = call('HGET', rows, '\255' .. topic_bytes)
if standing then
    last, forgotten = unpack_bytes('>I8I8', standing)
    id = sub(standing, 17, 24)
    first, after_last = unpack_bytes('>I8I8', standing, 25)
end
if since < math.max(forgotten, tonumber(deleted or 0)) then
    return {3}
end

-- The first note after that version.
local function name(number)
    return '\254' .. id .. pack('>I8', number)
end
local from, to = last > since and first or after_last, after_last
while from < to do
    local middle = math.floor((from + to) / 2)
    if unpack_bytes('>I8', call('HGET', rows, name(middle))) > since then
        to = middle
    else
        from = middle + 1
    end
end

local page, length = {1, version, incarnation, tip or '', run_id(), ''}, 6
local spare = 4 * room
local few, known = 100, {}
while from < after_last do
    local names = {}
    for number = from, math.min(from + few, after_last) - 1 do
        names[#names + 1] = name(number)
    end
    for _, note in ipairs(call('HMGET', rows, unpack(names))) do
        local of, key, row = sub(note, 1, 8), sub(note, 9), nil
        local is_delete = sub(key, 1, 1) == '\255'
        key = is_delete and sub(key, 2) or key
        -- A row with many notes is read once.
        if known[key] == nil then
            row = call('HGET', rows, key)
            if row and sub(row, 9, 8 + #topic_bytes) == topic_bytes then
                known[key] = sub(row, 1, 8)
            else
                local remembered = call('HGET', deletes, key)
                local was_here = remembered and pack('>I4', #remembered - 8) .. sub(remembered, 9) == topic_bytes
                -- Without a known last delete on this topic, each delete is listed.
                known[key] = was_here and sub(remembered, 1, 8) or false
            end
        end
        if known[key] == of or (is_delete and not known[key]) then
            local shown = is_delete and of or row or call('HGET', rows, key)
            page[length + 1], page[length + 2] = key, shown
            length, limit, room = length + 2, limit - 1, room - #key - #shown
            row = row or (not is_delete and shown)
        end
        spare = spare - #(row or '')
        if limit <= 0 or room <= 0 or spare <= 0 then
            page[6] = of
            return page
        end
    end
    from = from + #names
end
page[1] = 0
return page
